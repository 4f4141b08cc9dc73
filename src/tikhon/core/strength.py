"""Strengths: any scalar of a method is a number, a schedule of training progress, or learned while training goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NoReturn, Protocol

from tikhon.core.errors import TikhonError

By = Literal["progress", "step", "epoch"]

STEEPNESS = 10.0
"""Of a logistic schedule over its interval."""


class Position(Protocol):
    """Where training stands; the engine's clock."""

    @property
    def number(self) -> int: ...
    @property
    def progress(self) -> float: ...
    @property
    def epoch_progress(self) -> float: ...
    @property
    def learned(self) -> Mapping[Learned, float]: ...


class _NoNumber:
    """What changes in training is no number, and says so where somebody reckons with it."""

    def _refuse(self, *_: object) -> NoReturn:
        raise TikhonError(
            f"A number is needed where {self!r} was given: only arguments that are annotated Strength can be scheduled "
            "or Learned. Give a number there, or search for it over whole trainings: tikhon tune."
        )

    __lt__ = __le__ = __gt__ = __ge__ = __float__ = __neg__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __pow__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = _refuse


@dataclass(frozen=True)
class Schedule(_NoNumber):
    """A scalar that changes while training goes on, as `linear`, `cosine`, `exponential`, `logistic` or `stepwise` say.

    `over` is the interval in which it moves, in units of `by`; before it the value is `start`, after it `stop`.
    """

    shape: Literal["linear", "cosine", "exponential", "logistic", "stepwise"]
    start: float
    stop: float
    over: tuple[float, float] = (0.0, 1.0)
    by: By = "progress"
    levels: tuple[tuple[float, float], ...] = field(default=())

    def at(self, position: Position) -> float:
        if self.by == "step":
            now = float(position.number)
        elif self.by == "epoch":
            now = position.epoch_progress
        else:
            now = position.progress
        if self.shape == "stepwise":
            return next(value for begin, value in reversed(self.levels) if now >= begin or begin == self.levels[0][0])
        begin, end = self.over
        share = min(max((now - begin) / (end - begin), 0.0), 1.0)
        if self.shape == "linear":
            return self.start + (self.stop - self.start) * share
        if self.shape == "cosine":
            return self.stop + (self.start - self.stop) * 0.5 * (1.0 + math.cos(math.pi * share))
        if self.shape == "logistic":
            return self.start + (self.stop - self.start) * (2.0 / (1.0 + math.exp(-STEEPNESS * share)) - 1.0)
        return float(self.start * (self.stop / self.start) ** share)

    @property
    def values(self) -> tuple[float, ...]:
        """The extreme values: every value of the schedule lies between the least and the greatest of them."""
        return tuple(value for _, value in self.levels) if self.levels else (self.start, self.stop)


@dataclass(frozen=True, eq=False)
class Learned(_NoNumber):
    """A strength that follows the validation loss while the network trains: `tk.L2(tk.Learned(1e-4, 1e-6, 1e-1))`.

    Use it for penalties that help at once, such as L2 where a network over-fits. Not for strengths whose effect comes
    late, such as ELR's under label noise: by labels that are wrong in validation too the loss itself asks for less of
    it, though accuracy asks for more, and by clean ones a look of one step ahead asks for more without end.

    initial: where it starts; low: the least that it may become, above 0; high: the most. Needs `recipe.tune`, which
    says from what is learned, and how. One object in several places is one shared strength.

    >>> recipe = tikhon.Recipe(tikhon.ELR(tikhon.Learned(1.0, 0.1, 10.0)))
    >>> print(recipe.explain())
    remember         elr
    terms            elr
    elr/strength is learned between 0.1 and 10
    """

    initial: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(_finite, self.values)) or not 0.0 < self.low <= self.initial <= self.high:
            raise TikhonError(
                "Learned(initial, low, high) needs finite numbers with 0 < low <= initial <= high, not "
                f"{self.initial!r}, {self.low!r} and {self.high!r}. A strength moves by factors, so it cannot reach 0."
            )

    @property
    def values(self) -> tuple[float, ...]:
        """The extreme values, as a schedule has them."""
        return self.low, self.initial, self.high

    def __deepcopy__(self, memo: object) -> Learned:
        return self  # what it is now belongs to a run, so a copied method shares it


Strength = float | Schedule | Learned
"""A number, a schedule, or learned. A method reads it by `step.value(strength)`, the same number all through a step."""


def resolve(strength: Strength, position: Position) -> float:
    """The strength as a number at this point of training."""
    if isinstance(strength, Schedule):
        return strength.at(position)
    return position.learned[strength] if isinstance(strength, Learned) else strength


def _refuse_by(by: str) -> None:
    if by not in ("progress", "step", "epoch"):
        raise TikhonError(f"A schedule runs by 'progress', 'step' or 'epoch', not by {by!r}.")


def _finite(number: object) -> bool:
    return isinstance(number, (int, float)) and math.isfinite(number)


def _schedule(
    shape: Literal["linear", "cosine", "exponential", "logistic"],
    start: float,
    stop: float,
    over: tuple[float, float],
    by: By,
) -> Schedule:
    _refuse_by(by)
    if not (isinstance(over, tuple) and len(over) == 2 and all(map(_finite, (start, stop, *over)))):
        raise TikhonError(f"A schedule needs finite numbers and over=(begin, end), not {start}, {stop} over {over}.")
    if not over[0] < over[1]:
        raise TikhonError(f"A schedule moves over an interval (begin, end) with begin < end, not {over}.")
    if by == "step" and over == (0.0, 1.0):
        raise TikhonError("A schedule by step needs over=(first step, last step), for example over=(0, 1000).")
    return Schedule(shape, float(start), float(stop), (float(over[0]), float(over[1])), by)


def linear(start: float, stop: float, *, over: tuple[float, float] = (0.0, 1.0), by: By = "progress") -> Schedule:
    """From `start` to `stop` in a straight line.

    `by="progress"` counts the share of all optimizer steps done, `by="epoch"` the share of epochs begun (the current
    one included, so the last epoch has `stop`), `by="step"` optimizer steps.

    >>> linear(0.0, 0.8, by="epoch")
    Schedule(shape='linear', start=0.0, stop=0.8, over=(0.0, 1.0), by='epoch', levels=())
    """
    return _schedule("linear", start, stop, over, by)


def cosine(start: float, stop: float, *, over: tuple[float, float] = (0.0, 1.0), by: By = "progress") -> Schedule:
    """From `start` to `stop` along half a cosine: slow, fast, slow."""
    return _schedule("cosine", start, stop, over, by)


def exponential(start: float, stop: float, *, over: tuple[float, float] = (0.0, 1.0), by: By = "progress") -> Schedule:
    """From `start` to `stop` by a constant factor; both must be positive."""
    if not (_finite(start) and _finite(stop) and start > 0 and stop > 0):
        raise TikhonError(f"An exponential schedule runs between positive numbers, not {start} and {stop}.")
    return _schedule("exponential", start, stop, over, by)


def logistic(start: float, stop: float, *, over: tuple[float, float] = (0.0, 1.0), by: By = "progress") -> Schedule:
    """From `start` towards `stop` along the upper half of a logistic curve: fast, then ever slower.

    start + (stop - start) (2 / (1 + exp(-10 p)) - 1) at the share p of the interval, which ends 0.01% short of `stop`
    (Ganin et al. 2016, arXiv 1505.07818).
    """
    return _schedule("logistic", start, stop, over, by)


def stepwise(levels: Mapping[float, float], *, by: By = "progress") -> Schedule:
    """Constant from each mark to the next: `stepwise({0.0: 1.0, 0.5: 0.1})` is 1 in the first half, then 0.1."""
    _refuse_by(by)
    if not levels:
        raise TikhonError("A stepwise schedule needs at least one level, for example stepwise({0.0: 1.0, 0.5: 0.1}).")
    if not (isinstance(levels, Mapping) and all(_finite(number) for pair in levels.items() for number in pair)):
        raise TikhonError(f"A stepwise schedule needs a mapping of finite numbers, not {levels!r}.")
    pairs = tuple(sorted((float(begin), float(value)) for begin, value in levels.items()))
    return Schedule("stepwise", pairs[0][1], pairs[-1][1], (pairs[0][0], pairs[-1][0]), by, pairs)


def checked(name: str, strength: Strength, low: float = -math.inf, high: float = math.inf) -> Strength:
    """`strength`, if all its values lie in [low, high]; otherwise a `TikhonError` that names the argument."""
    if isinstance(strength, (Schedule, Learned)):
        values = strength.values
    elif isinstance(strength, (int, float)) and not isinstance(strength, bool):
        values = (float(strength),)
    else:
        raise TikhonError(
            f"{name} must be a number, a schedule (tk.linear, tk.cosine, ...) or tk.Learned, not {strength!r}."
        )
    for value in values:
        if not math.isfinite(value) or not low <= value <= high:
            raise TikhonError(f"{name} must be a finite number in [{low:g}, {high:g}], not {value}.")
    return strength if isinstance(strength, (Schedule, Learned)) else values[0]
