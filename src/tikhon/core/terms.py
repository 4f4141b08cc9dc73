"""Terms: the named parts of a loss, not yet reduced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from torch import Tensor

from tikhon.core.strength import Strength


@dataclass(frozen=True, eq=False)
class Slope:
    """The gradient of a value that has no graph, known in closed form: taken when it is wanted."""

    leaves: list[Tensor]
    gradient: Callable[[list[Tensor]], Sequence[Tensor]]

    def __call__(self) -> Sequence[Tensor]:
        return self.gradient(self.leaves)


@dataclass(frozen=True, eq=False)
class Term:
    """One addend of the loss: `strength * value`.

    A per-sample term is a tensor (B,); it shares the task's sample weights and denominator. A term on parameters, or
    one that is a property of the whole batch, is a scalar with `per_sample=False`. A strength of exactly 0.0 leaves
    the term out, because 0 * inf would be NaN.

    slope: of a term on parameters, where its value is given without graph.
    """

    value: Tensor
    strength: Strength = 1.0
    per_sample: bool = True
    slope: Slope | None = None

    def with_graph(self) -> Tensor:
        """The value as a function of the leaves, to first order where the slope is given."""
        if self.slope is None:
            return self.value
        pairs = zip(self.slope(), self.slope.leaves, strict=True)
        return self.value + reduce(add, [(slope.detach() * (leaf - leaf.detach())).sum() for slope, leaf in pairs])


Terms = Mapping[str, Term]
"""Terms by name; the recipe logs each as `method/name`."""
