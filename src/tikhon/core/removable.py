"""Removable units: what methods that drive whole units to zero and remove them at export have in common."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core.errors import TikhonError
from tikhon.core.parameters import Where, select
from tikhon.core.pruning import plan_of_zeros
from tikhon.core.step import Step
from tikhon.core.units import UnitGroup, unit_parameters, units

Members = list[tuple[UnitGroup, list[nn.Parameter]]]
"""Groups with their parameters, one row a unit; the first is the first producer's weight."""


@dataclass(frozen=True)
class Removable:
    """The groups of units that a method may remove, and the part of the model that was traced for them."""

    groups: tuple[UnitGroup, ...] = ()
    part: str = ""

    def owned(self, step: Step) -> Members:
        """The groups whose weights an attached optimizer moves, with those of their parameters that it moves."""
        leaves = {one.name: one.leaf for one in step.select("all")}
        return [
            (group, [leaves[name] for name in unit_parameters(group) if name in leaves])
            for group in self.groups
            if all(f"{name}.weight" in leaves for name in group.producers)
        ]

    def plan(self, model: nn.Module) -> dict[str, Tensor]:
        """What of these groups can be kept without changing the output: group name -> kept units."""
        chosen = {group.name for group in self.groups}
        return {name: kept for name, kept in plan_of_zeros(model, self.part).items() if name in chosen}


def find_removable(model: nn.Module, where: Where, method: str) -> Removable:
    """The groups of units of the layers that `where` names, of the model as it was written.

    A model that cannot be traced as a whole is looked at in the submodule that `where` names, if it names one. Raises
    `TikhonError` where there is nothing to remove, and where a parametrization may not keep a weight zero.
    """
    part = ""
    try:
        found = units(model)
    except TikhonError:
        if not (isinstance(where, str) and where in dict(model.named_modules())):
            raise
        part = where
        found = units(model, part)
    layers = {one.name.rpartition(".")[0] for one in select(model, where) if one.attribute == "weight"}
    named = [group for group in found if layers.intersection(group.producers)]
    groups = tuple(group for group in named if not group.fixed)
    if not groups:
        reasons = "; ".join(f"{group.name}: {group.fixed}" for group in named[:5]) or "none is a traced layer"
        raise TikhonError(f"{method} can remove no units of the layers that where={where!r} names ({reasons}).")
    for group in groups:
        for name in (*group.producers, *group.norms):
            if parametrize.is_parametrized(model.get_submodule(name)):
                raise TikhonError(
                    f"{method} makes weights zero, but {name} is parametrised and may not keep zero. Remove the "
                    "parametrization, or leave the layer out with where=."
                )
    return Removable(groups, part)
