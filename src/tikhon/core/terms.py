"""Terms: the named parts of a loss, not yet reduced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tikhon.core.strength import Strength


@dataclass(frozen=True, eq=False)
class Term:
    """One addend of the loss: `strength * value`.

    A per-sample term is a tensor (B,); it shares the task's sample weights and denominator. A term on parameters, or
    one that is a property of the whole batch, is a scalar with `per_sample=False`. A strength of exactly 0.0 leaves
    the term out, because 0 * inf would be NaN.
    """

    value: Tensor
    strength: Strength = 1.0
    per_sample: bool = True


Terms = Mapping[str, Term]
"""Terms by name; the recipe logs each as `method/name`."""
