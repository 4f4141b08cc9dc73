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
    if not torch.is_grad_enabled():  # without graph these read less; their way back would take four times as long
        norms = torch.stack(torch._foreach_norm(factors))
        return 0.5 * norms.dot(norms)
    return 0.5 * sum_of_entries(torch._foreach_mul(factors, factors))


def absolute_norm(weights: Iterable[Tensor]) -> Tensor:
    """sum of |w| over all tensors; a scalar whose (sub)gradient is sign(w), 0 at 0 (Tibshirani 1996).

    >>> absolute_norm([torch.tensor([3.0, -1.0]), torch.tensor([0.0])])
    tensor(4.)
    """
    return sum_of_entries(torch._foreach_abs(list(weights)))


def sum_of_entries(values: Iterable[Tensor]) -> Tensor:
    """The sum over all tensors; a scalar. Of squares or magnitudes, the way back takes half of that through norms.

    >>> sum_of_entries([torch.tensor([3.0, -1.0]), torch.tensor([0.5])])
    tensor(2.5000)
    """
    return torch.stack([one.sum() for one in values]).sum()
