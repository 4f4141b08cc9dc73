"""Methods made of methods: one of several for each batch, and one for a part of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import MOMENTS, SLOTS, Method, overrides
from tikhon.core.step import Step
from tikhon.core.target import Target


class OneOf(Method):
    """For each batch one of several methods, drawn at random: `tk.OneOf(tk.MixUp(), tk.CutMix())`.

    methods: methods that act on the batch and nowhere else; probabilities: their chances, even where omitted (they may
    add up to less than 1: the rest of the batches stay as they are).
    """

    card = Card(
        title="A random choice between methods",
        year=2026,
        arxiv="",
        problems=(),
        formula="i ~ Categorical(p); batch -> method_i.batch(batch)",
        claim="",
        helps="Several mixing methods are to share a run, as MixUp and CutMix do in common vision recipes.",
        hurts="Methods that act outside the batch cannot be drawn.",
        cost="That of the method drawn.",
        neutral="probabilities=[0.0]",
        kind="combinator",
    )

    def __init__(self, *methods: Method, probabilities: Sequence[float] | None = None) -> None:
        super().__init__()
        if not methods:
            raise TikhonError("OneOf needs at least one method to choose from.")
        for method in methods:
            _refuse_other(method, "OneOf")
            elsewhere = [moment for moment in MOMENTS if moment != "batch" and overrides(method, moment)]
            if elsewhere or not overrides(method, "batch"):
                raise TikhonError(
                    f"OneOf chooses among methods that act on the batch alone; {method.key} acts in "
                    f"{', '.join(elsewhere) or 'no moment'}. Put it into the recipe beside OneOf."
                )
        keys = [method.key for method in methods]
        if len(set(keys)) < len(keys):
            raise TikhonError(
                f"OneOf holds methods of equal keys ({', '.join(sorted(keys))}): name one, .named('second')."
            )
        chances = list(probabilities) if probabilities is not None else [1.0 / len(methods)] * len(methods)
        if len(chances) != len(methods) or min(chances) < 0.0 or sum(chances) > 1.0 + 1e-9:
            raise TikhonError(f"OneOf needs one probability a method, not negative, at most 1 in sum; got {chances}.")
        ordered = sorted(zip(methods, chances, strict=True), key=lambda pair: pair[0].key)
        self.methods = nn.ModuleList([method for method, _ in ordered])
        self.probabilities = [chance for _, chance in ordered]
        slot = max((method.slots["batch"] for method in methods), key=SLOTS["batch"].index)
        self.slots = {"batch": slot}
        self.needs = frozenset(need for method in methods for need in method.needs)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        draw = float(torch.rand((), generator=step.generator()))
        for method, chance in zip(self.methods, self.probabilities, strict=True):
            if draw < chance:
                return method.batch(inputs, target, step)  # type: ignore[operator, no-any-return]
            draw -= chance
        return inputs, target


@dataclass(frozen=True, eq=False)
class During:
    """A method for a part of training: `tk.During(tk.MixUp(), 0.0, 0.8)` stops mixing for the last fifth.

    begin, end: shares of training; the method acts while begin <= progress < end (an end of 1 includes the last step).
    """

    method: Method
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _refuse_other(self.method, "During")
        if not 0.0 <= self.begin < self.end <= 1.0:
            raise TikhonError(f"During needs 0 <= begin < end <= 1, not {self.begin} and {self.end}.")
        surgical = [moment for moment in ("prepare", "loss_function", "evaluate") if overrides(self.method, moment)]
        if surgical:
            raise TikhonError(
                f"During cannot switch {self.method.key}, which changes the model or the loss function for the whole "
                "of training. Give its strength a schedule instead."
            )

    def includes(self, progress: float) -> bool:
        return self.begin <= progress and (progress < self.end or self.end >= 1.0)


def _refuse_other(method: object, where: str) -> None:
    if not isinstance(method, Method):
        raise TikhonError(f"{where} takes methods such as tk.MixUp(), not {method!r}.")
