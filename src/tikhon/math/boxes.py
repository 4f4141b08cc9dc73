"""Boxes in images and signals: which pixels they hold, for every sample of a batch at once, and what to put there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Any, Literal

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.copies import copied, is_plain

Fill = float | Literal["mean", "noise"]
"""What stands where something was erased: a number, each channel's mean over its sample, or standard normal noise."""

Region = tuple[int | slice, ...]
"""A box of one sample, as an index of the batch: the sample, all channels, a slice of each spatial axis."""


def inside_boxes(sizes: Sequence[int], centres: Tensor, sides: Tensor) -> Tensor:
    """Which pixels have their centre inside the box of their sample.

    sizes: of the d spatial axes, in pixels; centres, sides: (B, d), in pixels, pixel i spanning [i, i + 1]. Returns
    booleans (B, *sizes). What of a box lies beyond the border is lost.

    >>> inside_boxes((4, 3), torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 2.0]])).int()
    tensor([[[0, 0, 0],
             [1, 0, 0],
             [1, 0, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    along = []
    for axis, size in enumerate(sizes):
        pixels = torch.arange(size, device=centres.device) + 0.5
        inside = (pixels - centres[:, axis, None]).abs() < 0.5 * sides[:, axis, None]
        along.append(inside.reshape(-1, *[size if other == axis else 1 for other in range(len(sizes))]))
    return reduce(and_, along)


def erased(inputs: Tensor, mask: Tensor, fill: Fill, generator: torch.Generator | None = None) -> Tensor:
    """The inputs with other values where the mask is true, in all channels.

    inputs: (B, C, ...); mask: booleans (B, ...); generator: where noise comes from. Returns the same shape; the inputs
    stay untouched.

    >>> erased(torch.tensor([[[1.0, 2.0, 6.0]]]), torch.tensor([[False, True, False]]), "mean")
    tensor([[[1., 3., 6.]]])
    """
    if fill == "mean":
        values = _means(inputs)
    elif fill == "noise":
        values = torch.randn(inputs.shape, generator=generator, device=inputs.device).to(inputs.dtype)
    else:
        values = inputs.new_full((), fill)
    return torch.where(mask[:, None], values, inputs)


def regions_inside(centres: Tensor, sides: Tensor) -> list[Region]:
    """The boxes that `inside_boxes` marks in images, as an index of each; boxes without a pixel are left out.

    centres, sides: (B, 2), in pixels, of boxes inside the image; on the CPU, as reading them waits for an accelerator.

    >>> regions_inside(torch.tensor([[9.0, 9.0], [2.0, 0.5]]), torch.tensor([[0.0, 0.0], [2.0, 1.0]]))
    [(1, slice(None, None, None), slice(1, 3, None), slice(0, 1, None))]
    """
    low, high = centres - 0.5 * sides, centres + 0.5 * sides
    edges = torch.cat([(low + 0.5).floor(), (high - 0.5).ceil()], dim=1).int().tolist()
    return [
        (row, slice(None), slice(top, bottom), slice(left, right))
        for row, (top, left, bottom, right) in enumerate(edges)
        if top < bottom and left < right
    ]


def erased_regions(
    inputs: Tensor, regions: Sequence[Region], fill: Fill, generator: torch.Generator | None = None
) -> Tensor:
    """The inputs with other values in these regions, in all channels.

    inputs: (B, C, ...); generator: where noise comes from. Returns the same shape; the inputs stay untouched.
    One region after the other, on purpose: what is written, and drawn for noise, are these pixels alone. With a mask
    every operation passes over the whole batch, and takes several times as long.

    >>> erased_regions(torch.tensor([[[1.0, 2.0, 6.0]]]), [(0, slice(None), slice(1, 2))], "mean")
    tensor([[[1., 3., 6.]]])
    """
    result = copied(inputs)
    # Slices are taken and written by NumPy where it can: torch takes several times as long, longer than to fill them.
    by_numpy = is_plain(result) and result.is_cpu and not result.requires_grad and result.dtype != torch.bfloat16
    pixels: Any = result.numpy() if by_numpy else result
    means = _means(inputs) if fill == "mean" else None
    room = torch.empty(math.prod(inputs.shape[1:]), device=inputs.device)  # where noise is drawn, for one after another
    noise: Any = room.numpy() if by_numpy else room
    for region in regions:
        hole = pixels[region]
        if means is not None:
            hole[...] = means[region[0]]
        elif fill == "noise":
            count = math.prod(hole.shape)
            room[:count].normal_(generator=generator)
            hole[...] = noise[:count].reshape(hole.shape)
        else:
            hole[...] = fill
    return result


def _means(inputs: Tensor) -> Tensor:
    """Each channel's mean over its sample, (B, C, 1, ...)."""
    return inputs.flatten(2).mean(2).reshape(*inputs.shape[:2], *[1] * (inputs.ndim - 2))


def checked_fill(fill: object) -> Fill:
    """`fill`, if it is one of those; otherwise a `TikhonError`."""
    number = isinstance(fill, (int, float)) and not isinstance(fill, bool) and math.isfinite(fill)
    if not number and fill not in ("mean", "noise"):
        raise TikhonError(f"fill must be a finite number, 'mean' or 'noise', not {fill!r}.")
    return fill  # type: ignore[return-value]
