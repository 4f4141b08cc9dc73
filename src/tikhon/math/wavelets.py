"""Orthonormal wavelets: Daubechies' filters and the periodic transform of images."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tikhon.core.errors import TikhonError


def _filter(order: int) -> tuple[float, ...]:
    # |h(w)|^2 = 2 (cos^2 w/2)^order P(sin^2 w/2): of each pair of roots in z, the one inside the unit circle
    halves = np.roots([math.comb(order - 1 + k, k) for k in reversed(range(order))])
    middles = 1.0 - 2.0 * halves.astype(complex)
    roots = middles + np.sqrt(middles**2 - 1.0)
    inside = np.where(np.abs(roots) < 1.0, roots, 1.0 / roots)
    taps = np.real(np.poly(np.concatenate([-np.ones(order), inside])))
    return tuple(float(one) for one in taps * (math.sqrt(2.0) / taps.sum()))


_FILTERS = {order: _filter(order) for order in range(1, 11)}


def daubechies(order: int) -> tuple[float, ...]:
    """The 2 * order taps of the low-pass filter with `order` vanishing moments (Daubechies 1988); order: 1 to 10.

    They add up to sqrt 2; of the possible filters it is the one of least delay.

    >>> daubechies(1)
    (0.7071067811865476, 0.7071067811865476)
    """
    if isinstance(order, bool) or not isinstance(order, int) or order not in _FILTERS:
        raise TikhonError(f"Daubechies wavelets have an order from 1 to 10, not {order!r}.")
    return _FILTERS[order]


def wavelet_matrix(size: int, order: int, like: Tensor) -> Tensor:
    """One level of the periodic transform as an orthonormal matrix (size, size), low-pass rows first; size: even."""
    low = torch.tensor(daubechies(order), dtype=torch.float64)
    high = low.flip(0) * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(order)
    columns = (2 * torch.arange(size // 2)[:, None] + torch.arange(2 * order)) % size
    rows = [
        torch.zeros(size // 2, size, dtype=torch.float64).scatter_add_(1, columns, taps.expand(size // 2, -1))
        for taps in (low, high)
    ]
    return torch.cat(rows).to(like)


def wavelet2d(x: Tensor, levels: int, order: int = 5) -> Tensor:
    """Coefficients of the orthonormal periodic transform of images, (..., H, W) -> (..., H, W), the coarsest in front.

    levels: at least 0; H and W: multiples of 2^levels; order: of Daubechies' wavelet, 1 is Haar's.

    >>> wavelet2d(torch.ones(2, 2), levels=1, order=1)[0, 0]
    tensor(2.0000)
    """
    return _transformed(x, levels, order, inverse=False)


def inverse_wavelet2d(coefficients: Tensor, levels: int, order: int = 5) -> Tensor:
    """The images that have these coefficients: the inverse, and the transpose, of `wavelet2d`."""
    return _transformed(coefficients, levels, order, inverse=True)


def _transformed(x: Tensor, levels: int, order: int, inverse: bool) -> Tensor:
    height, width = x.shape[-2:]
    if levels < 0 or height % 2**levels or width % 2**levels:
        raise TikhonError(f"{levels} levels need sides that are multiples of {2**levels}, not {height} x {width}.")
    for level in reversed(range(levels)) if inverse else range(levels):
        h, w = height >> level, width >> level
        rows, columns = wavelet_matrix(h, order, x), wavelet_matrix(w, order, x)
        part = x[..., :h, :w]
        part = rows.T @ part @ columns if inverse else rows @ part @ columns.T
        x = torch.cat([torch.cat([part, x[..., :h, w:]], dim=-1), x[..., h:, :]], dim=-2)
    return x
