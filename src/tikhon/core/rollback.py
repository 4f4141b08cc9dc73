"""Rollback: copies of what training changes, to go back to."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.optim import Optimizer

from tikhon.core.errors import TikhonError


class Rollback:
    """States of models, recipes, optimizers and others with `state_dict` and `load_state_dict`, copied in memory.

    taken: the copies, tensors and plain values in the order of the objects, to be saved and set again; None before any.
    """

    def __init__(self, *objects: Any) -> None:
        for one in objects:
            if not all(callable(getattr(one, name, None)) for name in ("state_dict", "load_state_dict")):
                raise TikhonError(
                    f"{type(one).__name__} has no state_dict and load_state_dict, and so cannot be put back."
                )
        if len({id(one) for one in objects}) < len(objects):
            raise TikhonError("The same object was passed twice; pass each once.")
        _refuse_lost(objects)
        self.objects = objects
        self.taken: list[Any] | None = None

    def take(self) -> None:
        """Copy all states as they are now."""
        self.taken = [copy.deepcopy(one.state_dict()) for one in self.objects]

    def put_back(self) -> None:
        """Load all states as they were taken; does nothing where none were."""
        for one, state in zip(self.objects, self.taken or (), strict=self.taken is not None):
            one.load_state_dict(copy.deepcopy(state))  # an optimizer would go on in the tensors that it is given


def _refuse_lost(objects: tuple[Any, ...]) -> None:
    """What an optimizer moves must be put back with it."""
    modules = [module for one in objects for module in (one, *getattr(one, "methods", {}).values())]
    known = {id(leaf) for module in modules if isinstance(module, nn.Module) for leaf in module.parameters()}
    groups = [group for one in objects if isinstance(one, Optimizer) for group in one.param_groups]
    lost = sum(id(leaf) not in known for group in groups for leaf in group["params"])
    if lost:
        raise TikhonError(
            f"The optimizers move {lost} parameters that belong to no model among what is to be put back: pass the "
            "model with its optimizer."
        )
