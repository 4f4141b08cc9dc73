"""The largest singular values of a matrix with their vectors, without the others."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.math.precision import at_least_float32

BESIDE = 8
"""Directions that are refined beside those asked for, so that a small gap behind the last one does no harm."""
HELD = 1e-2
"""Of the largest singular value: one that is smaller is lost in rounding where it is squared."""


def leading_singular(
    matrix: Tensor, rank: int, iterations: int | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """U_r (m, r), s_r (r,) falling and V_r^T (r, n) of a matrix (m, n), in at least float32.

    rank: r, at most the smaller of m and n; iterations: None for the exact decomposition, to rounding; a number for
    that many power iterations from r random directions (Halko, Martinsson, Tropp 2011, arXiv 0909.4061, algorithm 4.4),
    drawn from `generator`, on the CPU: components near to the r-th are then mixed, the more the fewer iterations. Each
    component is defined up to its sign. Where it is exact it waits for the device once.

    >>> leading_singular(torch.diag(torch.tensor([4.0, 1.0])), rank=1)[1]
    tensor([4.])
    """
    matrix = at_least_float32(matrix)
    if len(matrix) > matrix.shape[1]:
        u, s, v = leading_singular(matrix.T, rank, iterations, generator)
        return v.T, s, u.T
    if iterations is not None:
        start = torch.randn(matrix.shape[1], rank, generator=generator).to(matrix)
        return _refined(matrix, matrix @ start, rank, iterations)
    if 4 * (rank + BESIDE) <= len(matrix):
        # Half the work of the whole decomposition; what squaring loses comes back with two iterations.
        near = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -rank - BESIDE :]
        u, s, v = _refined(matrix, near, rank, 2)
        if bool(s[-1] > HELD * s[0]):
            return u, s, v
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank], v[:rank]


def _refined(matrix: Tensor, span: Tensor, rank: int, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values within a space of outputs (m, q), after power iterations from there."""
    basis = torch.linalg.qr(span).Q
    for _ in range(iterations):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr((basis.T @ matrix).T).Q).Q
    v, s, u = torch.linalg.svd((basis.T @ matrix).T, full_matrices=False)  # a tall matrix takes a third of the time
    return basis @ u[:rank].T, s[:rank], v[:, :rank].T
