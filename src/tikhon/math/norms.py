"""Norms of many tensors at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def half_squared_norm(weights: Iterable[Tensor]) -> Tensor:
    """(1/2) sum of w^2 over all tensors; a scalar with gradient w (Hoerl and Kennard 1970; Krogh and Hertz 1991).

    >>> half_squared_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(12.5000)
    """
    factors = list(weights)
    return 0.5 * _sum(torch._foreach_mul(factors, factors))


def absolute_norm(weights: Iterable[Tensor]) -> Tensor:
    """sum of |w| over all tensors; a scalar whose (sub)gradient is sign(w), 0 at 0 (Tibshirani 1996).

    >>> absolute_norm([torch.tensor([3.0, -1.0]), torch.tensor([0.0])])
    tensor(4.)
    """
    return _sum(torch._foreach_abs(list(weights)))


def _sum(values: Iterable[Tensor]) -> Tensor:
    """Of all entries. Not by norms: the way back through those takes twice as long."""
    return torch.stack([one.sum() for one in values]).sum()
