"""The effects of a self-tuning network in their order, with one draw of hyperparameters dealt out among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.losses import Loss
from tikhon.core.step import seed_for
from tikhon.core.target import Target
from tikhon.tuning.effects import Effect, Values
from tikhon.tuning.hyperparameters import Hyperparameter
from tikhon.tuning.response import BestResponse


class EffectSet:
    """effects: in the order in which they act on a batch; seed: of all their draws.

    Each draws from a stream of its own, a pure function of seed, name and number of the pass: nothing to save.
    """

    def __init__(self, effects: Sequence[Effect], seed: int) -> None:
        self._effects = {one.name: one for one in effects}
        self.seed = seed
        self.tuned: dict[str, Hyperparameter] = {
            f"{one.name}/{key}": setting
            for one in effects
            for key, setting in one.settings.items()
            if isinstance(setting, Hyperparameter)
        }
        if len(self._effects) < len(effects):
            raise TikhonError(f"Two effects share a name of {', '.join(one.name for one in effects)}: give one name=.")
        if not self.tuned:
            raise TikhonError("There is nothing to tune: give an effect a Rate, a Scale or a Count.")

    @property
    def identity(self) -> dict[str, Any]:
        """What the states of two networks must share for one to be loaded into the other."""
        return {"seed": self.seed, "names": list(self.tuned)}

    def generator(self, purpose: str, number: int, device: torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(seed_for(self.seed, purpose, number))

    def check(self, model: nn.Module) -> None:
        for effect in self._effects.values():
            effect.check(model)

    def place(self, model: nn.Module) -> None:
        for effect in self._effects.values():
            effect.place(model)

    def remove(self) -> None:
        for effect in self._effects.values():
            effect.remove()

    def values(self, raw: Tensor) -> dict[str, Values]:
        """Of every effect, its settings for every sample. raw: (B, H), unconstrained, in the order of `tuned`."""
        columns = dict(zip(self.tuned, raw.unbind(1), strict=True))
        return {
            name: {
                key: setting.value(columns[f"{name}/{key}"])
                if isinstance(setting, Hyperparameter)
                else raw.new_full((len(raw),), setting)
                for key, setting in effect.settings.items()
            }
            for name, effect in self._effects.items()
        }

    @contextmanager
    def batch(
        self, inputs: Any, target: Target, values: Mapping[str, Values], number: int
    ) -> Iterator[tuple[Any, Target]]:
        """The batch that the model gets; inside, effects act on its features too. number: of the pass."""
        try:
            for name, effect in self._effects.items():
                generator = self.generator(name, number, target.value.device)
                inputs, target = effect.batch(inputs, target, values[name], generator)
            yield inputs, target
        finally:
            for effect in self._effects.values():
                effect.rest()

    def targets(self, output: Tensor, target: Target, loss: Loss, values: Mapping[str, Values]) -> Target:
        for name, effect in self._effects.items():
            target = effect.targets(output, target, loss, values[name])
        return target

    def penalty(self, layers: Sequence[BestResponse], values: Mapping[str, Values]) -> Tensor | float:
        """What is added to the loss of every sample, (B,), or the number 0."""
        return sum(effect.penalty(layers, values[name]) for name, effect in self._effects.items())

    def log(self, raw: Tensor, spread: Tensor) -> dict[str, float]:
        """Every hyperparameter by name, and its spread. raw, spread: (H,), unconstrained."""
        raw, spread = raw.detach().cpu(), spread.detach().cpu()
        found: dict[str, float] = {}
        for i, (name, one) in enumerate(self.tuned.items()):
            found |= {name: float(one.value(raw[i])), f"{name}/spread": float(spread[i])}
        return found
