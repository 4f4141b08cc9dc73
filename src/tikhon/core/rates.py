"""Rates: the learning rates of all parameter groups, moved together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from tikhon.core.errors import TikhonError


class Rates:
    """The group with the largest learning rate gets what is set, the others keep their ratio to it.

    ratios: of the groups of all optimizers, in order.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = tuple(optimizers)
        found = [float(group["lr"]) for one in self._optimizers for group in one.param_groups]
        if not found or not 0.0 < max(found) < math.inf:
            raise TikhonError("Learning rates that keep their ratios need an optimizer with a positive, finite one.")
        self.ratios = [rate / max(found) for rate in found]

    def set(self, rate: float) -> None:
        groups = (group for one in self._optimizers for group in one.param_groups)
        for group, ratio in zip(groups, self.ratios, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * ratio)
            else:
                group["lr"] = rate * ratio
