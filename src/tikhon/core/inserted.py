"""Inserted layers: a function of features at named places of a model, while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tikhon.core.errors import TikhonError, near_misses
from tikhon.core.parameters import last_linear
from tikhon.core.step import Step
from tikhon.core.strength import Strength
from tikhon.core.target import Target

At = str | tuple[str, ...]
"""Names of modules, or globs of which every part between dots stands for one part of a name: "layer3.*" names the
blocks of layer3 and nothing inside them."""


def modules_at(model: nn.Module, at: At, method: str) -> dict[str, nn.Module]:
    """The modules that `at` names, each once, in order of registration.

    Raises `TikhonError`, with near misses, where a name or a glob matches nothing.

    >>> list(modules_at(nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU()), "*", "example"))
    ['0', '1']
    """
    modules: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if name}
    globs = (at,) if isinstance(at, str) else tuple(at)
    for glob in globs:
        if not any(_matches(glob, name) for name in modules):
            raise TikhonError(f"{method}: the model has no module {glob!r}. {near_misses(glob, modules)}")
    return {name: module for name, module in modules.items() if any(_matches(glob, name) for glob in globs)}


def _matches(glob: str, name: str) -> bool:
    patterns, parts = glob.split("."), name.split(".")
    return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))


class Inserted:
    """A random function (features, rate) -> features, in place after some modules or before one.

    It acts where these are in train mode and its rate, which a method sets for every batch, is not the number 0.
    """

    def __init__(self, function: Callable[[Tensor, float | Tensor], Tensor]) -> None:
        self._function = function
        self.rate: float | Tensor = 0.0
        self._method = ""
        self._handles: list[RemovableHandle] = []

    def place(self, model: nn.Module, at: At | None, method: str) -> None:
        """After the modules that `at` names; before the last `nn.Linear` where it is None."""
        self._method = method
        if at is None:
            self._handles = [model.get_submodule(last_linear(model, method)).register_forward_pre_hook(self._before)]
        else:
            modules: Iterable[nn.Module] = modules_at(model, at, method).values()
            self._handles = [module.register_forward_hook(self._after) for module in modules]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def set(self, strength: Strength, target: Target, step: Step) -> None:
        """The rate from now on, for the batch of this target."""
        self.rate = step.graph_value(strength, target.value.device)

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._idle(module):
            return None
        return (self._function(args[0], self.rate), *args[1:])

    def _after(self, module: nn.Module, args: Any, output: Any) -> Tensor | None:
        if self._idle(module):
            return None
        if not isinstance(output, Tensor):
            raise TikhonError(
                f"{self._method} acts on what a module returns, one tensor; {type(module).__name__} returns "
                f"{type(output).__name__}. Name another module with at=."
            )
        return self._function(output, self.rate)

    def _idle(self, module: nn.Module) -> bool:
        return not module.training or (isinstance(self.rate, float) and self.rate == 0.0)


def check_places(model: nn.Module, at: At | None, method: str) -> None:
    """Refuse places that the model does not have."""
    if at is None:
        last_linear(model, method)
    else:
        modules_at(model, at, method)
