"""What tuned hyperparameters do while a self-tuning network trains: to inputs, features, targets and the loss.

An effect's settings are numbers, which are fixed, or hyperparameters, which are tuned. Either reaches the effect as one
value for every sample of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.inserted import At, Inserted, check_places
from tikhon.core.losses import Loss
from tikhon.core.target import Target
from tikhon.math.random import dropped
from tikhon.methods.targets.label_smoothing import smoothed
from tikhon.tuning.hyperparameters import Hyperparameter
from tikhon.tuning.response import BestResponse

Setting = float | Hyperparameter
Values = Mapping[str, Tensor]
"""One value a sample, (B,), for every setting of an effect."""


class Effect:
    """Nothing by itself: an effect overrides what it needs. `batch` comes first and `rest` last in every pass."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Of every setting, the values that it may take, both included."""

    def __init__(self, name: str, **settings: Setting) -> None:
        self.name, self.settings = name, settings
        for key, setting in settings.items():
            low, high = self.bounds[key]
            if isinstance(setting, Hyperparameter):
                ends = setting.value(torch.tensor([-math.inf, math.inf])).tolist()
            else:
                ends = [setting, setting]
            if not low <= ends[0] <= ends[1] <= high:
                raise TikhonError(f"{name}: {key} must be in [{low:g}, {high:g}], not {setting!r}.")

    def check(self, model: nn.Module) -> None:
        """Refuse a model that has no place for it."""

    def place(self, model: nn.Module) -> None:
        """Put into the model what acts inside it."""

    def remove(self) -> None:
        """Take that out again."""

    def batch(self, inputs: Any, target: Target, values: Values, generator: torch.Generator) -> tuple[Any, Target]:
        """The batch that the model gets; `generator` is where all draws of this effect and pass come from."""
        return inputs, target

    def targets(self, output: Tensor, target: Target, loss: Loss, values: Values) -> Target:
        """What the output is asked to fit."""
        return target

    def penalty(self, layers: Sequence[BestResponse], values: Values) -> Tensor | float:
        """What is added to the loss of every sample, (B,)."""
        return 0.0

    def rest(self) -> None:
        """The pass is over."""


class TunedDropout(Effect):
    """Features set to zero with probability `rate`, a number of its own for every sample.

    rate: in [0, 1], `Rate(0.05, high=0.9)` in the paper's code; at: after which modules, names or globs of the parts of
    names ("layers.*.relu"); before the last `nn.Linear` by default. Dropouts of the model's own act as well.
    """

    bounds: ClassVar = {"rate": (0.0, 1.0)}

    def __init__(self, rate: Setting, at: At | None = None, name: str = "dropout") -> None:
        super().__init__(name, rate=rate)
        self.at = at
        self._layers = Inserted(self._dropped)
        self._generator: torch.Generator | None = None

    def check(self, model: nn.Module) -> None:
        check_places(model, self.at, self.name)

    def place(self, model: nn.Module) -> None:
        self._layers.place(model, self.at, self.name)

    def remove(self) -> None:
        self._layers.remove()

    def batch(self, inputs: Any, target: Target, values: Values, generator: torch.Generator) -> tuple[Any, Target]:
        self._layers.rate, self._generator = values["rate"], generator
        return inputs, target

    def _dropped(self, features: Tensor, rate: float | Tensor) -> Tensor:
        assert isinstance(rate, Tensor)
        if len(features) != len(rate):
            raise TikhonError(
                f"{self.name}: features {tuple(features.shape)} of {len(rate)} samples, each with a rate of its own: "
                "samples must stay the first axis. Name another module with at=."
            )
        return dropped(features, rate.reshape(-1, *[1] * (features.ndim - 1)), self._generator)

    def rest(self) -> None:
        self._layers.rate, self._generator = 0.0, None


class TunedSmoothing(Effect):
    """Label smoothing: `amount` of every target's probability is spread over all classes; in [0, 1]."""

    bounds: ClassVar = {"amount": (0.0, 1.0)}

    def __init__(self, amount: Setting, name: str = "smoothing") -> None:
        super().__init__(name, amount=amount)

    def targets(self, output: Tensor, target: Target, loss: Loss, values: Values) -> Target:
        if loss.kind != "classes" or output.ndim != 2:
            raise TikhonError(f"{self.name} smooths class labels: it needs cross-entropy of scores (B, classes).")
        amount = values["amount"][:, None]
        parts = tuple(replace(one, value=smoothed(one.dense(output.shape[1]), amount)) for one in target.parts)  # type: ignore[arg-type]
        return replace(target, parts=parts)


class TunedDecay(Effect):
    """strength/2 times the squared length of the weights that respond, those that each sample has by its own setting.

    It is in the loss, as `L2` is, so that weights can respond to it; the optimizer's own weight decay should be 0.
    """

    bounds: ClassVar = {"strength": (0.0, math.inf)}

    def __init__(self, strength: Setting, name: str = "decay") -> None:
        super().__init__(name, strength=strength)

    def penalty(self, layers: Sequence[BestResponse], values: Values) -> Tensor | float:
        return 0.5 * values["strength"] * torch.stack([layer.squared_norms() for layer in layers]).sum(0)
