"""Penalties with a gradient in closed form: without graph, and the step adds their gradient in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tikhon.core.parameters import Selected, effective_weights
from tikhon.core.strength import Strength
from tikhon.core.terms import Slope, Term

Value = Callable[[list[Tensor]], Tensor]
Gradient = Callable[[list[Tensor]], Sequence[Tensor]]


def penalty(chosen: Sequence[Selected], strength: Strength, value: Value, gradient: Gradient) -> Term:
    """strength * value(weights), a scalar; gradient(weights): its derivative by each of them, of their shapes.

    Where a weight is re-parameterised, a graph carries the gradient on to what it is made of.
    """
    if any(one.leaf_name != one.attribute for one in chosen):
        return Term(value(list(effective_weights(chosen).values())), strength, per_sample=False)
    return penalty_on([one.leaf for one in chosen], strength, value, gradient)


def penalty_on(leaves: list[Tensor], strength: Strength, value: Value, gradient: Gradient) -> Term:
    """The same of leaves, which are what an optimizer moves."""
    with torch.no_grad():
        return Term(value(leaves), strength, per_sample=False, slope=Slope(leaves, gradient))
