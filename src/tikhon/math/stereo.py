"""Stereo on lines: the disparity of every pixel by matching windows of two rectified signals."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.errors import TikhonError


def sampled(signal: Tensor, places: Tensor) -> Tensor:
    """A signal between its pixels, by linear interpolation; beyond the ends, the value at the end.

    signal: (W,); places: (...), in pixels. Returns (...), differentiable in both.

    >>> sampled(torch.tensor([0.0, 2.0]), torch.tensor([0.25, 5.0]))
    tensor([0.5000, 2.0000])
    """
    last = len(signal) - 1
    inside = places.clamp(0.0, float(last))
    left = inside.detach().floor().clamp_max(max(last - 1, 0)).long()
    share = inside - left
    return (1.0 - share) * signal[left] + share * signal[(left + 1).clamp_max(last)]


def matching_costs(left: Tensor, right: Tensor, disparities: Tensor, window: int = 9) -> Tensor:
    """Mean |left(x + k) - right(x + k - d)| over a window around every pixel, for every candidate d.

    left, right: (W,); disparities: (D,); window: odd, in pixels; at the ends it is cut. Returns (D, W).
    """
    if window < 1 or window % 2 == 0:
        raise TikhonError(f"window must be an odd number of pixels, not {window}.")
    places = torch.arange(len(left), device=left.device, dtype=left.dtype)
    differences = (left - sampled(right, places - disparities[:, None])).abs()
    return F.avg_pool1d(differences[:, None], window, 1, window // 2, count_include_pad=False)[:, 0]


def texture(signal: Tensor, window: int = 9) -> Tensor:
    """Standard deviation of a signal in a window around every pixel, cut at the ends: (W,) -> (W,)."""

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool1d(values[None, None], window, 1, window // 2, count_include_pad=False)[0, 0]

    centred = signal - signal.mean()
    return (mean(centred.square()) - mean(centred).square()).clamp_min(0.0).sqrt()


def block_matching(
    left: Tensor,
    right: Tensor,
    disparities: Tensor,
    window: int = 9,
    prior: Tensor | None = None,
    radius: float = 1.0,
    tolerance: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The candidate of least cost at every pixel of the left signal, and where the right one, matched back, agrees.

    left, right: (W,); disparities: (D,), rising; prior: (W,), only candidates within `radius` of it are searched, all
    where it is NaN or None; tolerance: by how much the disparity at the matched pixel of the right signal may differ.
    Returns disparities (W,) and (W,) booleans. Not differentiable.

    >>> line = torch.tensor([0.0, 0.0, 5.0, 1.0, 7.0, 2.0, 0.0, 0.0])
    >>> found, consistent = block_matching(line, line.roll(-1), torch.arange(4.0), window=3)
    >>> found[3:6], consistent[3:6]
    (tensor([1., 1., 1.]), tensor([True, True, True]))
    """
    here = torch.arange(len(left), device=left.device)
    forth = matching_costs(left, right, disparities, window)
    back = matching_costs(right.flip(0), left.flip(0), disparities, window).flip(1)
    if prior is not None:
        near = (disparities[:, None] - prior).abs() <= radius
        forth = torch.where(near | prior.isnan(), forth, torch.inf)
        landed = (here - prior.nan_to_num()).round().long().clamp(0, len(left) - 1)
        # the right signal searches around what lands on it; pixels on which nothing does keep all candidates
        expected = torch.full_like(prior, torch.nan).index_put((landed,), prior)
        near = (disparities[:, None] - expected).abs() <= radius
        back = torch.where(near | expected.isnan(), back, torch.inf)
    found, other = disparities[forth.argmin(0)], disparities[back.argmin(0)]
    partner = (here - found).round().long()
    seen = (partner >= 0) & (partner < len(left))
    return found, seen & ((found - other[partner.clamp(0, len(left) - 1)]).abs() <= tolerance)


def flattened(values: Tensor, regions: Tensor) -> Tensor:
    """The least-squares line through the values of every region: planes, in one dimension.

    values: (W,); regions: (W,), integers from 0. Returns (W,).

    >>> flattened(torch.tensor([0.0, 2.0, 1.0, 5.0]), torch.tensor([0, 0, 0, 1]))
    tensor([0.5000, 1.0000, 1.5000, 5.0000])
    """
    count = int(regions.max()) + 1
    x = torch.arange(len(values), device=values.device, dtype=values.dtype)

    def mean(what: Tensor) -> Tensor:
        sums = what.new_zeros(count).index_add(0, regions, what)
        return (sums / torch.bincount(regions, minlength=count).clamp_min(1))[regions]

    centred = x - mean(x)
    slope = mean(centred * values) / mean(centred.square()).clamp_min(1e-12)
    return mean(values) + slope * centred
