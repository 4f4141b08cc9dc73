"""Dead units: which units of a network say nothing, or what another one says already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.core.unit_moments import UnitMoments, unit_moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["unit_use", "UnitUse"]


@dataclass(frozen=True, eq=False)
class UnitUse:
    """By layer, in the order of the model, which units are which, (units,), bool, on the CPU: dead: 0 for every sample;
    constant: the same for every sample, and not 0; redundant: up to scale and offset what another unit is that is not.
    """

    dead: dict[str, Tensor]
    constant: dict[str, Tensor]
    redundant: dict[str, Tensor]

    def shares(self) -> dict[str, tuple[float, float, float]]:
        """By layer the shares of dead, constant and redundant units."""
        kinds = (self.dead, self.constant, self.redundant)
        return {name: tuple(float(one[name].double().mean()) for one in kinds) for name in self.dead}  # type: ignore[misc]

    def plot(self, axes: Axes | None = None) -> Axes:
        """A stacked bar for each layer: dead, constant, redundant, and the rest, which is in use."""
        axes = given_or_new(axes)
        shares = torch.tensor(list(self.shares().values()), dtype=torch.float64).T
        names, bottom = list(self.dead), torch.zeros(len(self.dead), dtype=torch.float64)
        rows = [*shares, 1.0 - shares.sum(0)]
        for kind, row, colour in zip(
            ("dead", "constant", "redundant", "in use"), rows, ("black", "C1", "C3", "C0"), strict=True
        ):
            axes.bar(range(len(names)), row.tolist(), bottom=bottom.tolist(), label=kind, color=colour)
            bottom = bottom + row
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_ylabel("share of units")
        axes.legend()
        return axes


def unit_use(model: nn.Module, inputs: Tensor, at: Sequence[str] | None = None, correlation: float = 0.99) -> UnitUse:
    """Which units are dead, constant or redundant over a data set, layer by layer.

    model: taken as in eval mode; inputs: (N, ...), the training set, or enough of it that what never happens there
    hardly happens; at: modules whose outputs are looked at, every activation by default, of convolutions by channel;
    correlation: in (0, 1], units whose correlation is at least this in size do the same, and all but one are redundant.
    Raises `TikhonError` where there is nothing to look at. Dead ReLUs get no gradient; a high learning rate or a bias
    that ran away killed them, and pruning can take them out for free.

    Cost: a pass over the data and a matrix units x units a layer.

    >>> model = nn.Sequential(nn.Linear(1, 4), nn.ReLU())
    >>> for one, value in ((model[0].weight, [[1.0], [2.0], [-1.0], [0.0]]), (model[0].bias, [0.0, 0.0, -9.0, 1.0])):
    ...     _ = one.data.copy_(torch.tensor(value).view_as(one))
    >>> unit_use(model, torch.tensor([[1.0], [2.0], [3.0]])).shares()
    {'1': (0.25, 0.25, 0.25)}
    """
    if not 0.0 < correlation <= 1.0:
        raise TikhonError(f"correlation must be in (0, 1], not {correlation}.")
    layers = unit_moments(model, inputs, at, "unit_use")
    still = {name: (one.low == one.high).cpu() for name, one in layers.items()}
    return UnitUse(
        dead={name: still[name] & (one.low == 0).cpu() for name, one in layers.items()},
        constant={name: still[name] & (one.low != 0).cpu() for name, one in layers.items()},
        redundant={name: _redundant(one, still[name], correlation) for name, one in layers.items()},
    )


def _redundant(moments: UnitMoments, still: Tensor, correlation: float) -> Tensor:
    """Units that correlate with an earlier one that is not redundant itself, constant ones left out."""
    mean = moments.total / moments.rows
    covariance = moments.products / moments.rows - mean[:, None] * mean
    deviation = covariance.diagonal().clamp_min(0.0).sqrt()
    alike = covariance.abs() >= correlation * (1.0 - 1e-9) * deviation[:, None] * deviation
    alike = alike.cpu() & ~still & ~still[:, None]
    found = torch.zeros(len(still), dtype=torch.bool)
    for unit in range(1, len(still)):
        found[unit] = bool((alike[unit, :unit] & ~found[:unit]).any())
    return found
