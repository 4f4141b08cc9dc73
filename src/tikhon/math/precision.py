"""Precision: where sixteen bits do not suffice, and squares underflow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The same values in float32 if they are in half precision, else as they are.

    >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def largest_magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """max |x| of every tensor, (n,), at least the smallest normal number, so that one may divide by it.

    Squares of small numbers underflow: what was divided by its largest magnitude has a Euclidean norm of at least 1,
    or is zero.

    >>> largest_magnitudes([torch.tensor([3.0, -4.0]), torch.tensor([1.0])])
    tensor([4., 1.])
    """
    if tensors[0].is_cpu:  # where the infinity norm takes many times as long
        ends = torch.stack([end for one in tensors for end in torch.aminmax(one)])
        largest = ends.abs().view(-1, 2).amax(1)
    else:
        largest = torch.stack(torch._foreach_norm(list(tensors), ord=torch.inf))
    return largest.clamp_min(torch.finfo(largest.dtype).tiny)
