"""A learning rate on trial: its losses, and what they let expect of the rest of the stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tikhon.core.errors import Diverged
from tikhon.math.exponential import forecast

SHARE = 10
"""A trial has a tenth of the stage's steps."""
VALIDATIONS = 16
"""How often a trial asks for the validation loss, where it does."""
HOPELESS = 9.0
"""A loss above the first one by so many times its size ends its trial."""
OUTLIERS, ROUNDS = 0.03, 10
"""The share of training losses that is left out in a round, and how many rounds there are."""


@dataclass
class Trial:
    """All of it is plain values. stage: steps of the stage; first: the first loss of training, once it is known;
    losses: of the steps so far; validations: in between."""

    stage: int
    first: float | None
    losses: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)

    def add(self, loss: Tensor | float, validation: Callable[[], float] | None) -> float | None:
        """One more step. Returns the loss that is expected at the end of the stage once the trial is over, else None.

        validation: asked for the validation loss, which is then looked at in place of those of training. Inf: there is
        no hope; a loss is not finite, or ten times that of the first step. Raises `Diverged` where that is not finite.
        """
        value = float(loss.detach() if isinstance(loss, Tensor) else loss)
        if self.first is None:
            if not math.isfinite(value):
                raise Diverged(f"The loss was {value} before any rate had been tried.")
            self.first = value
        self.losses.append(value)
        if not value <= self.first + HOPELESS * max(abs(self.first), abs(self.losses[0])):  # which NaN is not either
            return math.inf
        steps, every = self.stage // SHARE, max(1, self.stage // SHARE // VALIDATIONS)
        if validation is not None and len(self.losses) % every == 0:
            self.validations.append(float(validation()))
        if len(self.losses) < steps:
            return None
        if validation is not None:
            return self._expected_validation(every, self.first)
        times = torch.arange(steps)  # losses are of the weights before their step
        return self._forecast(times, self.losses, round(OUTLIERS * steps), ROUNDS)

    def _expected_validation(self, every: int, first: float) -> float:
        if not all(map(math.isfinite, self.validations)):
            return math.inf
        if max(self.validations) >= first:  # after a jump an exponential says little
            return self.validations[-1]
        return self._forecast(every * torch.arange(1, len(self.validations) + 1), self.validations, 1, 1)

    def _forecast(self, times: Tensor, losses: list[float], count: int, rounds: int) -> float:
        floor = 0.0 if min(losses) >= 0.0 else -math.inf  # of a loss that can be negative the least is not known
        return float(forecast(times, torch.tensor(losses, dtype=torch.float64), self.stage, count, rounds, floor))
