"""What a recipe can tell of the training in hand, as numbers by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tikhon.core.method import scalars
from tikhon.core.parameters import Selected, Where, every_parameter, matches
from tikhon.core.plan import Plan
from tikhon.core.run import Run
from tikhon.core.strength import resolve
from tikhon.core.tuning import Tuning


def numbers(plan: Plan, run: Run, parts: Mapping[str, Tensor | float], tuning: Tuning | None) -> dict[str, float]:
    """As `Recipe.log` says. parts: the parts of the latest loss. Waits for the device."""
    values = {f"loss/{name}": float(value) for name, value in parts.items()}
    for entry in plan.entries:
        for name, strength in scalars(entry.method).items():
            values[f"{entry.key}/{name}"] = resolve(strength, run.clock)
    if run.prepared and (chosen := _acted_on(plan, run)):
        values["sparsity"] = zero_share(chosen)
    values |= {} if tuning is None else tuning.numbers()
    return values | {f"skipped/{what}": float(count) for what, count in run.skipped.state().items() if count}


def _acted_on(plan: Plan, run: Run) -> list[Selected]:
    """The trainable parameters that the methods' `where` selects."""
    wheres: list[Where] = [
        where
        for entry in plan.entries
        for module in entry.method.modules()
        if (where := getattr(module, "where", None)) is not None
    ]
    return [
        one
        for one in (every_parameter(run.model) if wheres else ())
        if one.leaf.requires_grad and any(matches(where, one, one.leaf) for where in wheres)
    ]


@torch.no_grad()
def zero_share(chosen: list[Selected]) -> float:
    """The share of exact zeros among effective weights; of sharded ones, in this process's shards."""
    weights = {one.name: one.weight for one in chosen}.values()
    local: list[Tensor] = [weight.to_local() if hasattr(weight, "to_local") else weight for weight in weights]
    zeros = [weight.numel() - torch.count_nonzero(weight) for weight in local]
    return sum(int(count) for count in zeros) / max(1, sum(weight.numel() for weight in local))
