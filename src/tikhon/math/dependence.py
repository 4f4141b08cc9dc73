"""Distance covariance: dependence of any form between samples of any dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32
from tikhon.math.scalar_distances import scalar_covariance

PAIRS = 450
"""So many scalars, at most, are compared pair by pair: for fewer that is the faster way."""


def distance_covariance(x: Tensor, y: Tensor, unbiased: bool = False) -> Tensor:
    """The squared distance covariance of paired samples, which for all data vanishes only where they are independent.

        dCov^2 = mean_ij (A_ij B_ij),   A_ij = a_ij - a_i. - a_.j + a_..,   a_ij = |x_i - x_j|, and B of y

    x: (n,) or (n, d); y: (n,) or (n, e); Euclidean distances; unbiased: U-centred (sums over n - 2 and (n - 1)(n - 2),
    of which the mean is over n (n - 3)), whose expectation is that of the population and 0 under independence, so that
    it may be negative; needs four samples. Returns a scalar, differentiable; the gradient at equal points is 0.
    Memory: two matrices (n, n), whatever d; for more than a few hundred scalars n alone, and time n log n, and then the
    gradient has no gradient. Sources: Szekely, Rizzo, Bakirov 2007; Szekely, Rizzo 2014, arXiv 1310.2926.

    >>> x = torch.tensor([0.0, 1.0, 2.0, 3.0])
    >>> distance_covariance(x, x.square()), distance_covariance(x, torch.ones(4))
    (tensor(2.4375), tensor(0.))
    """
    if x.ndim not in (1, 2) or y.ndim not in (1, 2) or len(x) != len(y):
        raise TikhonError(f"Distance covariance needs pairs (n, ...), not {tuple(x.shape)} and {tuple(y.shape)}.")
    n, x, y = len(x), at_least_float32(x), at_least_float32(y)
    if n < (4 if unbiased else 1):
        least = "four samples without bias" if unbiased else "a sample"
        raise TikhonError(f"Distance covariance needs at least {least}, not {n}.")
    if n > PAIRS and x.numel() == y.numel() == n:
        value = scalar_covariance(x.flatten().double(), y.flatten().double(), unbiased)
        return value.to(torch.promote_types(x.dtype, y.dtype))
    product, rows, columns = _pair_sums(x, y)
    one, two, divisor = (n - 1, n - 2, n * (n - 3)) if unbiased else (n, n, n**2)
    # from sums of rows alone: centring a matrix takes longer than the product of two
    columns = torch.sub(columns, columns.sum(), alpha=0.5 / one)
    return torch.sub(product, torch.dot(rows, columns), alpha=2.0 / two) / divisor


def _pair_sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sum_ij a_ij b_ij of distances a and b, and the sums of their rows, (n,)."""
    a, b = _distances(x), _distances(y)
    return torch.dot(a.flatten(), b.flatten()), a.sum(1), b.sum(1)


def _distances(x: Tensor) -> Tensor:
    """(n, n), by differences: from squares, those of near points are lost in rounding."""
    if x.numel() == len(x):
        x = x.flatten()
        return (x.unsqueeze(1) - x).abs_()  # in place: fresh memory takes many times as long as the arithmetic
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
