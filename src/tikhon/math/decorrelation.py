"""Decorrelation: features that each say something of their own, the same in two views of a sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST = 1e-12
"""Added to variances: a feature that is the same for all samples has correlation 0, and a gradient."""


def standardised(z: Tensor, correction: int = 0) -> Tensor:
    """Every feature with mean 0 and variance 1 over the batch: (B, D) -> (B, D).

    correction: 0 divides the variance by B, as the papers' correlations do; 1 by B - 1, as the official code of the
    mixed variant does, which needs two rows.

    >>> standardised(torch.tensor([[1.0], [3.0]]))
    tensor([[-1.],
            [ 1.]])
    """
    # What batch norm does, in one kernel; not by torch.nn.functional, which refuses a single row.
    unit = torch.batch_norm(z, None, None, None, None, True, 0.0, SMALLEST, False)
    return unit if correction == 0 else unit * math.sqrt((len(z) - correction) / len(z))


def barlow_twins(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """How far the cross-correlation C = one^T other / B is from the identity (Zbontar et al. 2021, arXiv 2103.03230).

    one, other: (B, D), standardised. Returns the sum of (1 - C_ii)^2, the invariance, and the sum of the squares of
    the other entries, the redundancy: scalars, at least 0.

    >>> view = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> barlow_twins(view, view)
    (tensor(0.), tensor(0.))
    """
    rows, features = one.shape
    diagonal = (one * other).sum(0) / rows
    # The squares of one^T other add up to tr(one one^T other other^T), which takes matrices of B x B.
    wide = rows < features
    squares = ((one @ one.T) * (other @ other.T)).sum() if wide else (one.T @ other).square().sum()
    return (1.0 - diagonal).square().sum(), squares / rows**2 - diagonal.square().sum()
