"""Augmentations: random changes of an input that keep its meaning, for methods that ask for equal answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.batches import first_tensor, map_tensors
from tikhon.core.errors import TikhonError
from tikhon.core.pool import Pool
from tikhon.core.step import Step

View = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs (B, ...), generator on their device) -> inputs of the same shape; it draws from the generator alone."""


def noise(deviation: float) -> View:
    """Gaussian noise on every number."""

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + deviation * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)

    return view


def shift(by: int) -> View:
    """Samples moved by up to so many places along every dimension after the channels (B, C, ...); zeros come in."""

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        for dim in range(2, x.ndim):
            offsets = torch.randint(2 * by + 1, (len(x), 1), generator=generator, device=x.device)
            places = offsets + torch.arange(x.shape[dim], device=x.device)
            index = places.reshape(len(x), *[1] * (dim - 1), -1, *[1] * (x.ndim - dim - 1)).expand(x.shape)
            x = F.pad(x, [0, 0] * (x.ndim - dim - 1) + [by, by]).gather(dim, index)
        return x

    return view


def one_after_another(*views: View) -> View:
    """The views, each of what the one before gave."""

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        for one in views:
            x = one(x, generator)
        return x

    return view


def viewed(inputs: Any, view: View, step: Step, method: str) -> Any:
    """A view of every floating-point tensor of the inputs."""

    def one(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        seen = view(x, step.generator(x.device))
        if seen.shape != x.shape:
            raise TikhonError(f"{method}: a view of {tuple(x.shape)} must have that shape, not {tuple(seen.shape)}.")
        return seen

    return map_tensors(one, inputs)


def drawn_like(pool: Pool, count: int, step: Step) -> Tensor:
    """`count` inputs of the pool on the device of the batch in hand, and in its precision."""
    like = first_tensor(step.inputs)
    x = pool.draw(count, step, like.device)
    return x.to(like.dtype) if x.is_floating_point() else x
