"""AutoLRS: a learning rate for every stage of training, found by trying rates for a while and looking ahead."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.rates import Rates
from tikhon.core.rollback import Rollback
from tikhon.math.gaussian_process import best_place, next_place
from tikhon.tuning.trial import Trial

__all__ = ["AutoLRS", "Stage"]

card = Card(
    title="AutoLRS: Automatic Learning-Rate Schedule by Bayesian Optimization on the Fly",
    authors="Jin, Zhou, Zhao, Zhu, Guo, Canini, Krishnamurthy",
    year=2021,
    arxiv="2105.10762",
    problems=("speed", "stability"),
    formula=r"\eta_{i+1}=\arg\min_\eta \mu_i(\eta)-\kappa\sigma_i(\eta),\quad "
    r"\hat L(\tau)=a e^{b\tau}+c,\ b<0,\ \text{fitted to the losses of } \tau/10 \text{ steps}",
    claim="Found on the fly, schedules train ResNet-50, Transformer and BERT 1.22 to 1.5 times as fast as published.",
    helps="A training that runs once and whose schedule nobody has tuned.",
    hurts="Short stages, of which a tenth says little; noisy losses, which low rates calm at once while high ones pay "
    "late; over-fitting while only training losses are seen.",
    cost="As many steps again as are kept; a copy of what is put back.",
    neutral="",
    kind="tuner",
)


@dataclass(frozen=True)
class Stage:
    """Its steps; rates that were tried; the loss expected of each, inf where it was given up; the rate chosen."""

    steps: int
    rates: list[float]
    forecasts: list[float]
    chosen: float


@dataclass
class _Now:
    """Plain values. left: steps of the stage, 0 while exploring; places: log rates, 0 the lowest, 1 the highest."""

    stage: int
    trial: Trial
    place: float = 0.5
    left: int = 0
    trained: int = 0
    validating: bool = False
    places: list[float] = field(default_factory=list)
    forecasts: list[float] = field(default_factory=list)


class AutoLRS:
    """Find the learning rate while training: try rates before every stage, go back, and go on with the best.

    A stage has a constant rate. Before it, from one state, `candidates` rates are tried for a tenth of its steps each.
    An exponential fitted to the losses says what a rate would lead to by the end of the stage, a Gaussian process says
    which to try next, and the one with the least expected loss is taken. Each stage is twice as long as the one before,
    up to `longest`. The parameter group with the largest rate gets what was found, others keep their ratio to it.

    Make it where training begins: weights loaded, recipe attached. Tell it the loss after every step. It sets the
    rates; use no scheduler beside it. While `exploring`, the weights are not those of training: do not judge them, and
    count steps by `trained`. Batches just go on: each candidate sees others, and what was learned from them is put
    back. So is a recipe's clock, which its random numbers follow (others go on): give `attach` the steps that are kept.
    With several processes pass the mean loss of all.

    state: what training changes, in any order: model, optimizers, recipe, gradient scaler, averages. low, high: rates
    to look between, positive; stage, longest: steps of the first and the longest stage, at least 30, in the paper 1000
    and 8000; candidates: rates to try, 10; kappa: how much the unknown attracts, 1000; validation: returns the
    validation loss of the model as it stands, and is asked 16 times a candidate once stages have been `longest`, as in
    the paper; None: training losses to the end.

    Not for short trainings: a tenth of a stage must say something. Nor where losses are noisy and progress is slow: a
    low rate calms the noise at once, what a high one gains later a trial does not see, and rates fall too early. Keep
    `low` within a factor of 100 of `high`. Cost: as many steps again as are kept; while
    exploring, a wait for the device a step. Reference: Jin et al. 2021, arXiv 2105.10762, Algorithm 1. Otherwise than
    in the official code, the first candidate is the middle of the bounds (there drawn), the least mean of the process
    is taken (there the least forecast), a loss that is not finite or ten times the first ends its candidate, which
    counts as the worst other (there as 10^6), no loss is expected below 0 unless some are, and losses that fall in a
    line, or ever faster, are expected to stay where the trial leaves them (there at their mean).

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> tuner = tikhon.AutoLRS(model, optimizer, low=1e-3, high=1.0, stage=30)
    >>> while tuner.trained < 30:
    ...     optimizer.zero_grad()
    ...     loss = (model(torch.eye(3)) - 1.0).square().mean()
    ...     loss.backward()
    ...     optimizer.step()
    ...     tuner.step(loss)
    >>> len(tuner.stages[0].rates)
    10
    """

    def __init__(
        self,
        *state: Any,
        low: float,
        high: float,
        stage: int = 1000,
        longest: int = 8000,
        candidates: int = 10,
        kappa: float = 1000.0,
        validation: Callable[[], float] | None = None,
    ) -> None:
        if not 0.0 < low < high < math.inf:
            raise TikhonError(f"low and high must be rates with 0 < low < high, not {low} and {high}.")
        if not 30 <= stage <= longest or candidates < 1 or not 0.0 <= kappa < math.inf:
            given = f"stage={stage}, longest={longest}, candidates={candidates}, kappa={kappa}"
            raise TikhonError(f"30 <= stage <= longest, candidates >= 1 and a finite kappa >= 0 are needed: {given}.")
        self.low, self.high, self.longest, self.candidates, self.kappa = low, high, longest, candidates, kappa
        self.validation = validation
        self.stages: list[Stage] = []
        self._rollback = Rollback(*state)
        self._rates = Rates([one for one in state if isinstance(one, Optimizer)])
        self._now = _Now(stage, Trial(stage, first=None))
        self._rollback.take()
        self._try(next_place([], [], kappa))

    @property
    def exploring(self) -> bool:
        """Whether a candidate is being tried, whose steps will be put back."""
        return self._now.left == 0

    @property
    def trained(self) -> int:
        """Steps that were kept."""
        return self._now.trained

    @property
    def rate(self) -> float:
        """The learning rate of the next step, of the parameter group with the largest one."""
        return self._rate(self._now.place)

    def step(self, loss: Tensor | float) -> None:
        """Say what the loss of the step was that has just been taken."""
        now = self._now
        if now.left:
            now.left, now.trained = now.left - 1, now.trained + 1
            if not now.left:
                self._begin_stage()
            return
        expected = now.trial.add(loss, self.validation if now.validating else None)
        if expected is not None:
            self._tried(expected)

    def restore(self) -> None:
        """Where a candidate is being tried, put back what it changed and begin it anew: to judge or export."""
        if self.exploring:
            self._rollback.put_back()
            self._try(self._now.place)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, the state to go back to among them."""
        stages = [asdict(one) for one in self.stages]
        return {"now": asdict(self._now), "stages": stages, "ratios": self._rates.ratios, "taken": self._rollback.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, after model, optimizers and the others have loaded theirs."""
        if set(state) != set(self.state_dict()) or len(state["taken"]) != len(self._rollback.objects):
            raise TikhonError("This is not the state of an AutoLRS that puts back as many objects.")
        state = copy.deepcopy(dict(state))
        self._now = _Now(**{**state["now"], "trial": Trial(**state["now"]["trial"])})
        self.stages = [Stage(**one) for one in state["stages"]]
        self._rates.ratios, self._rollback.taken = state["ratios"], state["taken"]
        self._rates.set(self.rate)

    def _rate(self, place: float) -> float:
        return float(self.low * (self.high / self.low) ** place)

    def _try(self, place: float) -> None:
        self._now.place, self._now.trial = place, Trial(self._now.stage, self._now.trial.first)
        self._rates.set(self.rate)

    def _tried(self, expected: float) -> None:
        now = self._now
        now.places.append(now.place)
        now.forecasts.append(expected)
        self._rollback.put_back()
        if len(now.places) < self.candidates:
            self._try(next_place(now.places, now.forecasts, self.kappa))
            return
        self._try(best_place(now.places, now.forecasts))
        self.stages.append(Stage(now.stage, [self._rate(one) for one in now.places], now.forecasts, self.rate))
        now.left, now.places, now.forecasts = now.stage, [], []

    def _begin_stage(self) -> None:
        now = self._now
        now.validating = now.stage == self.longest
        now.stage = min(2 * now.stage, self.longest)
        self._rollback.take()
        self._try(next_place([], [], self.kappa))
