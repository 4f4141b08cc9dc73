"""First and second moments of a network's units over a data set, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.outputs import read_outputs
from tikhon.core.parameters import find_module
from tikhon.core.units import ACTIVATIONS, LAYERS

CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)


@dataclass(frozen=True, eq=False)
class UnitMoments:
    """Of one layer with C units: rows, over how many samples and positions; low, high: (C,), the least and the greatest
    value; total: (C,) and products: (C, C), sums of values and of products of two, in float64."""

    rows: int
    low: Tensor
    high: Tensor
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, values: Tensor) -> UnitMoments:
        """Of values (rows, C)."""
        exact = values.double()
        return cls(len(values), values.amin(0), values.amax(0), exact.sum(0), exact.T @ exact)

    def __add__(self, other: UnitMoments) -> UnitMoments:
        return UnitMoments(
            self.rows + other.rows,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.total + other.total,
            self.products + other.products,
        )


def unit_moments(model: nn.Module, inputs: Tensor, at: Sequence[str] | None, method: str) -> dict[str, UnitMoments]:
    """Of the layers `at`: by default every activation, or where there is none every linear layer and convolution.

    A unit is a channel of what a convolution or its norm returns, and of an activation after one; else an entry of the
    last axis. Positions count as samples. Raises `TikhonError` where there is nothing to look at.
    """
    if at is None:
        every = dict(model.named_modules())
        at = [name for name, one in every.items() if isinstance(one, ACTIVATIONS)]
        at = at or [name for name, one in every.items() if isinstance(one, LAYERS)]
    if not at or not len(inputs):
        lack = "activations or layers of torch; name modules with at=" if len(inputs) else "samples"
        raise TikhonError(f"{method}: there are no {lack}.")
    wanted = [find_module(model, name, method) if name else model for name in at]
    laid_out = [name for name, one in model.named_modules() if isinstance(one, (*CHANNELS_FIRST, *CHANNELS_LAST))]
    first = False

    def read(module: nn.Module, output: Tensor) -> UnitMoments | None:
        nonlocal first
        if isinstance(module, (*CHANNELS_FIRST, *CHANNELS_LAST)):
            first = isinstance(module, CHANNELS_FIRST)
        if not any(module is one for one in wanted):
            return None
        rows = output.movedim(1, -1) if first and output.ndim > 2 else output
        return UnitMoments.of(rows.flatten(0, -2))

    found: dict[str, UnitMoments] = {}
    for batch in read_outputs(model, inputs, list(dict.fromkeys([*laid_out, *at])), method, read):
        for name, moments in batch:
            if moments is not None:
                found[name] = found[name] + moments if name in found else moments
    if not found:
        raise TikhonError(f"{method}: none of {', '.join(at)} was called.")
    return found
