"""HyRes: hyperspectral images restored by few components with sparse wavelets, all thresholds by Stein's estimate."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.math.wavelets import inverse_wavelet2d, wavelet2d

__all__ = ["hyres", "Restored", "noise_deviation", "soft_threshold", "sure_threshold"]

card = Card(
    title="HyDe: The First Open-Source, Python-Based, GPU-Accelerated Hyperspectral Denoising Package",
    authors="Coquelin, Rasti, Gotz, Ghamisi, Gloaguen, Streit",
    year=2022,
    arxiv="2204.06979",
    problems=("robustness",),
    formula=r"\min_X \tfrac12\lVert Y-D X V^\top\rVert_F^2+\sum_k\lambda_k\lVert x_k\rVert_1",
    claim="Removes noise that differs from band to band with nothing to set by hand, on large images at little cost.",
    helps="Many bands that mix few materials, and noise that is independent from band to band and pixel to pixel.",
    hurts="Stripes, dead lines and other noise that has a structure; few bands.",
    cost="One singular value decomposition of pixels x bands, a wavelet transform and a sort of each component.",
    neutral="",
    kind="solver",
)


@dataclass(frozen=True)
class Restored:
    """cube (H, W, B); rank: how many components were kept; thresholds (rank,), of these, in units of the noise; noise
    (B,), its standard deviation in each band."""

    cube: Tensor
    rank: int
    thresholds: Tensor
    noise: Tensor


def noise_deviation(pixels: Tensor) -> Tensor:
    """Standard deviation of what each band has that a linear regression on all other bands does not explain.

    pixels: (N, B), N above B. Returns (B,), positive; at least 1e-6 of the band's own size. It holds the noise of the
    other bands too, so far as these are needed to predict the signal (Bioucas-Dias and Nascimento 2008).
    """
    gram = pixels.T @ pixels
    size = gram.diagonal().clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    scaled = gram / size / size[:, None] + 1e-12 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    unexplained = 1.0 / torch.linalg.inv(scaled).diagonal().clamp_min(1.0)
    freedom = len(pixels) - len(gram) + 1
    deviation: Tensor = size * (unexplained.clamp_min(1e-12) / freedom).sqrt()
    return deviation


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """argmin_t (x - t)^2 / 2 + threshold |t|, elementwise.

    >>> soft_threshold(torch.tensor([-3.0, 0.5]), 1.0)
    tensor([-2., 0.])
    """
    return x.sign() * (x.abs() - threshold).clamp_min(0.0)


def sure_threshold(x: Tensor, hybrid: bool = True) -> tuple[Tensor, Tensor]:
    """The threshold for each column of coefficients with unit noise, and Stein's unbiased estimate of its risk.

        SURE(t) = N - 2 #{i : |x_i| <= t} + sum_i min(|x_i|, t)^2

    x: (N, K); the least estimate over 0 and all |x_i| up to sqrt(2 log N); hybrid: in columns whose energy is within
    N + sqrt(N) log2(N)^(3/2), where nearly all is noise and the minimum of SURE is chance, sqrt(2 log N) itself.
    Returns two tensors (K,). Source: Donoho and Johnstone 1995, "Adapting to unknown smoothness via wavelet shrinkage".
    """
    count = len(x)
    universal = math.sqrt(2.0 * math.log(count))
    zero = x.new_zeros(1, x.shape[1])
    size = torch.cat([zero, x.abs().sort(0).values])
    squares = size.square()
    below = torch.arange(count + 1, dtype=x.dtype, device=x.device)[:, None]
    risks = count - 2.0 * below + squares.cumsum(0) + (count - below) * squares
    risk, place = torch.where(size <= universal, risks, float("inf")).min(0)
    threshold = size.gather(0, place[None])[0]
    if hybrid:
        noise = squares.sum(0) <= count + math.sqrt(count) * math.log2(count) ** 1.5
        capped = squares.clamp_max(universal**2).sum(0)
        at_universal = count - 2.0 * (size[1:] <= universal).sum(0) + capped
        threshold, risk = torch.where(noise, universal, threshold), torch.where(noise, at_universal, risk)
    return threshold, risk


def hyres(cube: Tensor, noise: Tensor | None = None, levels: int = 5, order: int = 5, hybrid: bool = True) -> Restored:
    """Remove noise from a hyperspectral image: nothing needs to be set.

    Bands are divided by their noise; singular vectors V of pixels x bands give components; in each the wavelet
    coefficients are thresholded softly, which minimises the problem below exactly; as many components are kept, in
    order, as have the least estimated risk together.

        min_X 1/2 ||Y - D X V^T||_F^2 + sum_k lambda_k ||x_k||_1

    cube: (H, W, B), bands last, as in the field, more pixels than bands; noise: (B,), positive, standard deviation in
    each band, None: `noise_deviation`; levels: of the transform, fewer where the image is small; order: of Daubechies'
    wavelet, 5 in the paper; hybrid: thresholds of `sure_threshold`, False: by SURE alone, which keeps nearly all
    components, as its minimum over thresholds is by chance below the risk of dropping them. Sides that are no multiples
    of 2^levels are covered by two windows, which are averaged where they overlap. Computed in float64. Raises
    `TikhonError` for what is no such image.

    The official code takes the best of 15 thresholds from 0 to 1.65 and stops at the first component at which its
    running estimate is no longer above twice the one before; here both are the minima themselves.
    Sources: Coquelin et al. 2022, arXiv 2204.06979; the method is Rasti, Ulfarsson and Ghamisi's, 2017, "Automatic
    hyperspectral image restoration using sparse and low-rank modeling".

    >>> import torch, tikhon
    >>> generator = torch.Generator().manual_seed(0)
    >>> clean = torch.linspace(1, 2, 32)[:, None, None].expand(32, 32, 8)
    >>> noise = 0.1 * torch.randn(32, 32, 8, generator=generator)
    >>> restored = tikhon.hyres(clean + noise)
    >>> restored.rank, bool((restored.cube - clean).std() < 0.03)
    (1, True)
    """
    _refuse(cube, noise, levels)
    height, width, bands = cube.shape
    with torch.no_grad():
        y = cube.detach().double()
        levels = min(levels, int(math.log2(min(height, width))))
        deviation = noise_deviation(y.reshape(-1, bands)) if noise is None else noise.to(y)
        whitened = (y / deviation).reshape(-1, bands)
        v = torch.linalg.svd(whitened, full_matrices=False)[2].T
        windows = list(itertools.product(_windows(height, 2**levels), _windows(width, 2**levels)))
        maps = (whitened @ v).T.reshape(-1, height, width)
        x = wavelet2d(torch.stack([maps[:, rows, columns] for rows, columns in windows]), levels, order)
        thresholds, risks = sure_threshold(x.transpose(0, 1).flatten(1).T, hybrid)
        dropped = x.square().sum((0, 2, 3)) - x[:, 0].numel()
        running = torch.cat([risks.new_zeros(1), (risks - dropped).cumsum(0)])
        rank = int(running.argmin())
        parts = inverse_wavelet2d(soft_threshold(x[:, :rank], thresholds[:rank, None, None]), levels, order)
        components, times = maps.new_zeros(rank, height, width), maps.new_zeros(height, width)
        for part, (rows, columns) in zip(parts, windows, strict=True):
            components[:, rows, columns] += part
            times[rows, columns] += 1.0
        found = torch.einsum("khw,bk->hwb", components / times, v[:, :rank]) * deviation
    return Restored(found.to(cube), rank, thresholds[:rank].to(cube), deviation.to(cube))


def _windows(size: int, step: int) -> list[slice]:
    """One or two windows, each the greatest multiple of `step` long, that cover it all. Padding would repeat noise."""
    width = size // step * step
    return [slice(0, width)] if width == size else [slice(0, width), slice(size - width, size)]


def _refuse(cube: Tensor, noise: Tensor | None, levels: int) -> None:
    if cube.ndim != 3 or min(cube.shape) < 2 or not cube.is_floating_point():
        raise TikhonError(f"hyres needs a floating-point cube (H, W, B), not {tuple(cube.shape)} of {cube.dtype}.")
    if cube.shape[0] * cube.shape[1] <= cube.shape[2]:
        raise TikhonError(f"More pixels than bands are needed, not {tuple(cube.shape)}: are the bands the last axis?")
    if noise is not None and (noise.shape != cube.shape[2:] or not bool((noise > 0).all())):
        raise TikhonError(f"noise must be {cube.shape[2]} positive deviations, one a band.")
    if levels < 0:
        raise TikhonError(f"levels must be at least 0, not {levels}.")
    if not bool(torch.isfinite(cube).all()):
        raise TikhonError("Some values of the cube are NaN or infinite: fill dead pixels first.")
