"""Surveys: all methods that address a problem on the same tasks, with the same search and the same seeds."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tikhon.core.catalogue import Listing, find, methods
from tikhon.core.errors import TikhonError, near_misses
from tikhon.core.files import write_whole
from tikhon.core.method import Method
from tikhon.math.statistics import mean_interval, paired_difference
from tikhon.studies import shifted, split_digits
from tikhon.studies.arms import Given, nothing, parse_arm, source_hash
from tikhon.studies.cells import Event, RunCells
from tikhon.studies.evidence import bundled
from tikhon.studies.experiment import LEARNING_RATE, Report
from tikhon.studies.study import Run, Settings, training
from tikhon.studies.workers import run_cells

PLAIN = "none"
SEARCH_SEEDS = (1000, 1001)
"""The search sees no seed that is reported."""
TIMED = 2
"""How many seeds are run beside plain training for the ratio of times."""

Row = Mapping[str, Any]
"""What a method got on a course: chosen (settings), measure -> a value a seed, time (seconds of training over those of
plain training, median), or refused: why."""


@dataclass(frozen=True)
class Course:
    """One task on which methods are compared.

    Either its data are learned at once, and every arm keeps the epoch that was best on validation data, as it does in
    several domains, where methods are given what they ask for (`shifted`); or, in turn, the classes of split digits
    pair by pair, where no epoch is the best of all. task: arguments of `load_task`.
    """

    name: str
    setting: str
    task: Mapping[str, Any]
    epochs: int
    model: str = "mlp"
    optimizer: str = "sgd"
    # Rows are known by what repr shows: in turn the candidates say it too, of domains the setting does.
    in_turn: bool = field(default=False, repr=False)
    domains: bool = field(default=False, repr=False)

    @property
    def run(self) -> Run:
        if self.in_turn:
            return _classes_in_turn
        train = shifted.shifted if self.domains else training
        return train(task=self.task, model=self.model, epochs=self.epochs, optimizer=self.optimizer)

    @property
    def given(self) -> Given:
        """What methods need to be made, in place of the course's data."""
        return shifted.STAND_INS if self.domains else nothing

    @property
    def learning_rate(self) -> float:
        """Of arms that choose among strengths; lower in turn, since penalties that hold old weights are steep."""
        return 0.05 if self.in_turn else LEARNING_RATE[self.optimizer]

    @property
    def measures(self) -> tuple[str, ...]:
        """What a row holds of every seed."""
        return ("metric", "learned", "forgetting") if self.in_turn else ("metric", "train", "calibration_error")


def _classes_in_turn(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    begun = time.perf_counter()
    measures = split_digits.run({**settings, "compete": True}, seed, report)
    return {**measures, "seconds": time.perf_counter() - begun}


@dataclass(frozen=True)
class Survey:
    """The courses of a problem, and which measure decides there; more of it is better, unless `lower`."""

    problem: str
    courses: tuple[Course, ...]
    measure: str = "metric"
    lower: bool = False
    seeds: int = 10


def _shifted(kind: str, strength: float, change: str) -> Course:
    """change: what is done to the digits, with a place for how much."""
    parts = [f"{part * strength:.2g}" for part in shifted.PARTS]
    return Course(
        f"digits-{kind}",
        f"digits {change.format(', '.join(parts[:-1]) + ' or ' + parts[-1])} in training and validation, {strength:g} "
        "at the test, MLP 64-256-256-10 with layer norms, 40 epochs of Adam",
        {"source": "digits", "shift": f"{kind}:{strength:g}"},
        40,
        model="tikhon.studies.shifted:network",
        optimizer="adam",
        domains=True,
    )


def _noisy(rate: float, kind: str) -> Course:
    name = f"{kind}-{round(100 * rate)}"
    setting = f"digits, {rate:.0%} {kind} label noise, MLP 64-256-256-10, 40 epochs"
    return Course(name, setting, {"source": "digits", "label_noise": rate, "noise_kind": kind}, 40)


_DIGITS_100 = Course(
    "digits-100", "digits, 100 samples, MLP 64-256-256-10, 100 epochs", {"source": "digits", "train_size": 100}, 100
)
_MNIST1D = Course(
    "mnist1d-1000",
    "MNIST-1D, 1,000 samples, MLP 40-256-256-10, 40 epochs",
    {"source": "mnist1d", "train_size": 1000},
    40,
)

SURVEYS: Mapping[str, Survey] = {
    one.problem: one
    for one in (
        Survey(
            "overfitting",
            (
                _DIGITS_100,
                Course(
                    "mnist-1000",
                    "MNIST, 1,000 samples, MLP 784-256-256-10, 20 epochs",
                    {"source": "mnist5k", "train_size": 1000},
                    20,
                ),
                _MNIST1D,
                Course(
                    "breast-cancer-100",
                    "breast cancer (table), 100 samples, MLP 30-256-256-2, 60 epochs",
                    {"source": "breast_cancer", "train_size": 100},
                    60,
                ),
            ),
        ),
        Survey(
            "noisy-labels",
            tuple(_noisy(rate, "symmetric") for rate in (0.2, 0.4, 0.6))
            + tuple(_noisy(rate, "asymmetric") for rate in (0.1, 0.2, 0.4)),
        ),
        Survey(
            "forgetting",
            (
                Course(
                    "split-digits",
                    "digits in five pairs of classes, one pair after another, all ten outputs compete throughout, "
                    f"MLP 64-256-256-10, {split_digits.EPOCHS} epochs a pair",
                    {"source": "digits"},
                    split_digits.EPOCHS,
                    in_turn=True,
                ),
            ),
        ),
        Survey("calibration", (_DIGITS_100, _MNIST1D), "calibration_error", lower=True),
        Survey(
            "shift",
            (
                _shifted("rotation", 30.0, "turned by {} degrees"),
                _shifted("noise", 0.5, "with noise of {} standard deviations"),
                _shifted("blur", 1.0, "blurred by {} pixels"),
            ),
        ),
    )
}


def find_survey(problem: str) -> Survey:
    """The survey of a problem; a `TikhonError` with near misses where there is none."""
    if problem not in SURVEYS:
        raise TikhonError(f"There is no survey of {problem!r}. {near_misses(problem, SURVEYS)}")
    return SURVEYS[problem]


_FOR_FINE_TUNING = {"fields", "lowrank"}, {"bang", "dr_tune", "mask_tuning", "sara"}
"""Families and methods that regularise what comes after another training, and nothing in one from scratch."""


def arms(survey: Survey) -> list[str]:
    """Plain training, and the methods that address the problem in the training of a classifier, by name."""
    course = survey.courses[0]  # all of them are of one kind
    suits = _kept_in_turn if course.in_turn else _helped_by_domains if course.domains else _at_once
    return [PLAIN, *(one.name for one in methods().values() if survey.problem in one.card.problems and suits(one))]


def _kept_in_turn(listing: Listing) -> bool:
    return listing.classifies and keeps_tasks(listing)


def _at_once(listing: Listing) -> bool:
    return listing.classifies and from_scratch(listing)


def _helped_by_domains(listing: Listing) -> bool:
    if listing.name in shifted.AT_TEST:
        return True
    return from_scratch(listing) and (listing.classifies or shifted.asks_for(listing) is not None)


def keeps_tasks(listing: Listing) -> bool:
    """Whether the method acts where a task of several ends; in a single training it would do nothing."""
    return listing.load().task_end is not Method.task_end


def from_scratch(listing: Listing) -> bool:
    """Whether the method regularises a single training that begins with random weights."""
    families, names = _FOR_FINE_TUNING
    return listing.family not in families and listing.name not in names and not keeps_tasks(listing)


def candidates(arm: str, course: Course) -> list[Settings]:
    """The four candidates of an arm: its first strength at a third of the default, the default, 3 and 10 times it.

    Where a method does not allow that much, half of the way that is left to 1, and half again. Arms whose methods have
    no strength choose among four learning rates, as plain training does; those that adapt at the test, among four of
    the adaptation.
    """
    rate = course.learning_rate
    keep = "" if course.in_turn else "+early_stopping"
    if course.domains and arm in shifted.AT_TEST:
        recipe = _written(arm, shifted.AT_TEST[arm]) + keep
        return [
            {"recipe": recipe, "learning_rate": rate, "adaptation_rate": other} for other in shifted.ADAPTATION_RATES
        ]
    given = {} if arm == PLAIN else parse_arm(f"{arm}({find(arm).card.example})", course.given).calls[0][1]
    scalar = None if arm == PLAIN else first_strength(find(arm), given)
    if scalar is None:
        recipe = _written(arm, given) + keep
        return [{"recipe": recipe, "learning_rate": factor * rate} for factor in (0.25, 0.5, 1.0, 2.0)]
    name, default = scalar
    values = [default / 3.0, default, 3.0 * default, 10.0 * default]
    for place, share in ((2, 0.5), (3, 0.75)):
        if not _allowed(_written(arm, {**given, name: values[place]}), course.given):
            values[place] = default + share * (1.0 - default)
    recipes = [_written(arm, {**given, name: value}) for value in values]
    if course.domains and arm in shifted.LATE:
        recipes = [f"{arm}({name}={shifted.late(arm, value)})" for value in values]
    return [{"recipe": recipe + keep, "learning_rate": rate} for recipe in recipes]


def first_strength(listing: Listing, given: Mapping[str, Any]) -> tuple[str, float] | None:
    """The first strength of a method and its default; given: arguments that take the place of defaults."""
    for one in inspect.signature(listing.load().__init__).parameters.values():
        value = given.get(one.name, one.default)
        if "Strength" in str(one.annotation) and isinstance(value, (int, float)) and value > 0.0:
            return one.name, float(value)
    return None


def _allowed(recipe: str, given: Given) -> bool:
    try:
        parse_arm(recipe, given)
    except TikhonError:
        return False
    return True


def _written(arm: str, arguments: Mapping[str, Any]) -> str:
    values = ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}" for name, value in arguments.items()
    )
    return f"{arm}({values})" if values else arm


# One row -------------------------------------------------------------------------------------------------------------


def identity(arm: str, course: Course, seeds: int) -> dict[str, str]:
    """What a row rests on: the method's source, and how it was tried."""
    tried = repr((course, candidates(arm, course), seeds, SEARCH_SEEDS))
    return {
        "source": "" if arm == PLAIN else source_hash(find(arm).path),
        "tried": hashlib.sha256(tried.encode()).hexdigest()[:16],
    }


def run_row(cell: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Search on seeds of its own, then train the chosen candidate on every seed; in a worker."""
    course, seeds = Course(**cell["course"]), cell["seeds"]
    tried = candidates(cell["arm"], course)
    runs = len(tried) * len(SEARCH_SEEDS) + seeds + TIMED
    done = 0

    def run(settings: Settings, seed: int) -> Mapping[str, float]:
        nonlocal done
        measures = course.run(settings, seed, lambda _: None)
        done += 1
        report(min(1.0, done / runs))  # a candidate that diverges makes more of them
        return measures

    def whole(settings: Settings) -> dict[str, Any] | None:
        """The row of a candidate; None where a seed diverges."""
        seen, ratios = [], []
        for seed in range(seeds):
            seen.append(run(settings, seed))
            if math.isnan(seen[-1]["validation"]):
                return None
            if seed < TIMED:  # in turn, so that a drift of the machine's speed meets both alike
                ratios.append(seen[-1]["seconds"] / run(plain, seed)["seconds"])
        measures = {name: [one[name] for one in seen] for name in course.measures}
        return {"chosen": dict(settings), "measures": measures, "time": median(ratios)}

    plain = {"recipe": PLAIN, "learning_rate": course.learning_rate}  # a rate that it survives
    try:
        found = [(fmean(run(one, seed)["validation"] for seed in SEARCH_SEEDS), one) for one in tried]
        ranked = sorted((one for one in found if not math.isnan(one[0])), key=lambda one: -one[0])
        # Divergence shows without a look at test data: whoever meets it takes the next best candidate.
        row = next(filter(None, (whole(settings) for _, settings in ranked)), None)
    except TikhonError as error:
        return {"refused": str(error)}
    return row or {"refused": "it diverged with every candidate"}


# All rows ------------------------------------------------------------------------------------------------------------


class Rows:
    """The stored rows of a survey: a file a course, written anew whenever a row is there."""

    def __init__(self, survey: Survey, directory: Path | None = None) -> None:
        self.survey = survey
        self.directory = (directory or bundled()) / "surveys" / survey.problem
        self._rows = {course.name: self._read(course) for course in survey.courses}

    def _read(self, course: Course) -> dict[str, Row]:
        path = self._path(course)
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise TikhonError(f"{path} is no survey that tikhon wrote: delete it and run it again.") from error

    def _path(self, course: Course) -> Path:
        return self.directory / f"{course.name}.json"

    def due(self, wanted: Sequence[str] | None = None) -> list[tuple[Course, str]]:
        """(course, arm) of the rows that are missing, or whose method or trial has changed."""
        return [
            (course, arm)
            for course in self.survey.courses
            for arm in (wanted or arms(self.survey))
            if arm not in self._rows[course.name] or self._stale(course, arm)
        ]

    def stale(self) -> list[tuple[Course, str]]:
        """(course, arm) of the stored rows whose method or trial has changed."""
        known = arms(self.survey)
        return [
            (course, arm)
            for course in self.survey.courses
            for arm in self._rows[course.name]
            if arm in known and self._stale(course, arm)
        ]

    def _stale(self, course: Course, arm: str) -> bool:
        row = self._rows[course.name][arm]
        return any(row.get(key) != value for key, value in identity(arm, course, self.survey.seeds).items())

    def keep(self, course: Course, arm: str, row: Row) -> None:
        """Store a row."""
        rows = self._rows[course.name]
        rows[arm] = {**identity(arm, course, self.survey.seeds), **row}
        current = {name: rows[name] for name in sorted(rows) if name in arms(self.survey)}
        write_whole(json.dumps(current, indent=1, allow_nan=False) + "\n", self._path(course))

    def of(self, course: Course) -> Mapping[str, Row]:
        """The rows of a course by arm, stale ones among them."""
        return self._rows[course.name]


def run_survey(
    survey: Survey,
    rows: Rows,
    wanted: Sequence[str] | None = None,
    *,
    jobs: int = 2,
    on_event: Callable[[Event], None] | None = None,
    engine: RunCells = run_cells,
) -> None:
    """Run the rows that are due, each stored as soon as it is there: interrupted, it goes on with the rest."""
    cells = [{"course": asdict(course), "arm": arm, "seeds": survey.seeds} for course, arm in rows.due(wanted)]

    def keep(cell: Mapping[str, Any], result: Row) -> None:
        rows.keep(Course(**cell["course"]), cell["arm"], result)

    engine(run_row, cells, jobs=jobs, on_result=keep, on_event=on_event)


@dataclass(frozen=True)
class Standing:
    """How an arm did on a course: its mean, and the paired difference to plain training with its 95% interval."""

    arm: str
    mean: float
    difference: float
    low: float
    high: float
    time: float
    chosen: str

    @property
    def clear(self) -> bool:
        return self.low > 0.0 or self.high < 0.0


def standings(survey: Survey, rows: Mapping[str, Row]) -> list[Standing]:
    """The arms that ran on a course, best first. Empty where plain training is not stored."""
    if "measures" not in rows.get(PLAIN, {}):
        return []
    plain = rows[PLAIN]["measures"][survey.measure]
    found = []
    for arm, row in rows.items():
        if "measures" in row:
            values = row["measures"][survey.measure]
            difference, low, high = paired_difference(values, plain)
            assert low is not None
            assert high is not None
            mean = mean_interval(values)[0]
            found.append(Standing(arm, mean, difference, low, high, row["time"], row["chosen"]["recipe"]))
    return sorted(found, key=lambda one: one.mean, reverse=not survey.lower)
