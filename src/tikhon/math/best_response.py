"""Structured best responses: weights of a layer as a function of hyperparameters, a factor for each of its units."""

from __future__ import annotations

from torch import Tensor


def responding_weight(weight: Tensor, direction: Tensor, scale: Tensor) -> Tensor:
    """W + s ⊙_row V: every unit moves along a direction of its own (MacKay et al. 2019, arXiv 1903.03088, eq. 10).

    weight, direction: (K, ...), W and V; scale: s, (K,), linear in the unconstrained hyperparameters. Returns (K, ...).

    >>> responding_weight(torch.ones(2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.5, -1.0]))
    tensor([[1.5000, 1.0000],
            [1.0000, 0.0000]])
    """
    return weight + scale.reshape(-1, *[1] * (weight.ndim - 1)) * direction


def responding_squared_norms(weight: Tensor, direction: Tensor, scale: Tensor) -> Tensor:
    """||W + s_b ⊙_row V||^2 for every b, without making these weights.

    weight, direction: (K, ...); scale: (B, K). Returns (B,), at least 0 but for rounding.

    >>> responding_squared_norms(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([[0.0], [1.0]]))
    tensor([2., 8.])
    """
    w, v = weight.flatten(1), direction.flatten(1)
    return w.square().sum() + (scale * (2.0 * (w * v).sum(1) + scale * v.square().sum(1))).sum(1)
