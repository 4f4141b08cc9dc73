"""A search over recipes, whatever engine runs it: what is tried, how it is judged, and when it ends.

A trial is a recipe with all its numbers. It is trained with the same seeds as every other trial, keeps the epoch that
was best on validation data, and its score is the mean over seeds of the validation metric there. Test data are not
looked at. An engine draws trials from the space, learns from their scores where to look, and stops a trial whose first
seeds are worse than those of most others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple, Protocol

from tikhon.core.catalogue import find
from tikhon.core.errors import Diverged, TikhonError
from tikhon.data import Task
from tikhon.studies.arms import EARLY_STOPPING, parse_arm, source_hash
from tikhon.studies.experiment import Report, attempt_cell, cell, training_step
from tikhon.studies.store import canonical_json
from tikhon.tuning.space import Candidate, Point, Space

SEEDS = (1000, 1001, 1002)
"""Of the search; those that are reported are others."""

STARTUP = 5
"""So many trials run to their end before one is stopped early."""

State = Literal["finished", "stopped", "diverged", "lost"]
"""stopped: early, being worse than most; lost: the process that ran it died more than once."""


@dataclass(frozen=True)
class Setting:
    """How every recipe is trained: the arguments of `experiment.cell` but recipe, learning rate and seed."""

    task: Mapping[str, Any]
    model: str
    epochs: int
    batch_size: int
    optimizer: str
    sources: Mapping[str, str]

    def cell(self, candidate: Candidate, seed: int) -> dict[str, Any]:
        """The training run of a candidate, which keeps its best epoch."""
        return cell(
            task=self.task,
            model=self.model,
            arm=f"{candidate.recipe}+{EARLY_STOPPING}",
            seed=seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=candidate.learning_rate,
            sources=self.sources,
        )


@dataclass(frozen=True)
class Trial:
    """A point of the space, and what was seen there. scores: the validation metric of the seeds that ran, more is
    better; seconds: how long their runs took."""

    number: int
    candidate: Candidate
    point: Point
    state: State
    scores: tuple[float, ...]
    seconds: tuple[float, ...]
    reason: str = ""

    @property
    def score(self) -> float:
        """The mean over the seeds that ran."""
        return fmean(self.scores)


class Update(NamedTuple):
    """How far a search is. best: the best score of a finished trial; fraction: of the budget."""

    trials: int
    best: float | None
    fraction: float


@dataclass(frozen=True)
class Search:
    """What is searched, and all that determines what is found.

    first: points to try before any is drawn.
    """

    name: str
    space: Space
    setting: Setting
    seed: int = 0
    first: Sequence[Point] = ()
    seeds: tuple[int, ...] = SEEDS

    @property
    def identity(self) -> str:
        """A hash: trials of another setting, or of changed methods, are not trials of this search."""
        rests_on = {
            "name": self.name,
            "space": self.space.text,
            "learning_rate": repr(self.space.learning_rate),
            "cell": self.setting.cell(Candidate("none", 1.0), 0),
            "methods": {name: source_hash(find(name).path) for name in self.space.methods},
            "seed": self.seed,
            "seeds": self.seeds,
            "first": [dict(point) for point in self.first],
        }
        return hashlib.sha256(canonical_json(rests_on, "the search").encode()).hexdigest()[:16]

    def check(self, task: Task) -> None:
        """Refuse, before anything is trained, methods that cannot be in one recipe or cannot train this model."""
        for _, candidate in self.space.every():
            one = self.setting.cell(candidate, self.seeds[0])
            try:
                training_step(one, task, parse_arm(one["arm"]))()  # some see only in a step what the data are
            except Diverged:
                continue  # with other numbers it may not
            except TikhonError as error:
                raise TikhonError(
                    f"The space holds {candidate.recipe}, which cannot be trained: {error} "
                    "Leave one out, or write alternatives, as in (elr | gce)."
                ) from error


@dataclass
class Budget:
    """When a search begins no further trial: after so many trials, or when there is no time for one.

    after: runs that are to follow, for which time is set aside; spent: seconds that earlier sessions took.
    """

    trials: int | None = None
    seconds: float | None = None
    after: int = 0
    spent: float = 0.0

    def __post_init__(self) -> None:
        self._begin = time.monotonic()

    def allows(self, trials: int, runs: Sequence[float], seeds: int, jobs: int) -> bool:
        """Whether another trial may begin, after so many. runs: how long those until now took; seeds: of a trial."""
        if self.trials is not None and trials >= self.trials:
            return False
        if self.seconds is None or not runs:
            return True  # one trial is always run
        needed = fmean(runs) * (seeds + self.after / jobs)
        return self.elapsed + needed <= self.seconds

    @property
    def elapsed(self) -> float:
        return self.spent + time.monotonic() - self._begin

    def fraction(self, trials: int) -> float:
        """How much is used up."""
        parts = [
            trials / self.trials if self.trials else 0.0,
            self.elapsed / self.seconds if self.seconds else 0.0,
        ]
        return min(max(parts), 1.0)


class Engine(Protocol):
    """Runs a search, and returns its trials in the order in which they were drawn.

    Trials that are stored from an earlier session belong to it. Interrupted at any moment, it loses no finished run.
    """

    def __call__(self, search: Search, budget: Budget, on_update: Callable[[Update], None]) -> list[Trial]: ...


def run(cell: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """One seed of a trial, in a worker: its score or why there is none, and how long it took."""
    begin = time.monotonic()
    result = attempt_cell(cell, report)
    seconds = time.monotonic() - begin
    if "failed" in result:
        return {"failed": result["failed"], "seconds": seconds}
    return {"score": result["validation_metric"], "seconds": seconds}


def best(trials: Sequence[Trial]) -> Trial:
    """The finished trial with the highest score, the first of equals."""
    finished = [trial for trial in trials if trial.state == "finished"]
    if not finished:
        reason = next((trial.reason for trial in trials if trial.reason), "")
        raise TikhonError(
            "No trial of the search ran to its end: give it more time (--minutes) or fewer --epochs."
            + (f" The first that diverged: {reason} Search lower learning rates (--learning-rate)." if reason else "")
        )
    return max(finished, key=lambda trial: trial.score)


def plain_data(trial: Trial) -> dict[str, Any]:
    """A trial as numbers, strings and lists."""
    found = asdict(trial)
    return {**found, **found.pop("candidate"), "score": trial.score if trial.scores else None}
