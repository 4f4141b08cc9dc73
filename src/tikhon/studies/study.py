"""Studies: small experiments that check what a method's paper claims."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tikhon.core.errors import Diverged, TikhonError
from tikhon.studies.experiment import Report, cell, run_cell

Settings = Mapping[str, Any]
Run = Callable[[Settings, int, Report], Mapping[str, float]]
"""(settings of an arm's candidate, seed, progress) -> measures; `validation` is what the search chooses by, more is
better. A run that diverged has the `validation` NaN, and no other measure need be there."""

STUDIES = Path(__file__).parent
MEASURES = ("metric", "gap", "calibration_error", "seconds", "peak_memory")


@dataclass(frozen=True)
class Expectation:
    """`arm` is better than `than` in `measure`: the 95% interval of the paired difference lies on the right side of
    `margin`. With `direction="lower"` less is better. A negative margin says "no worse than by that much"."""

    arm: str
    than: str
    measure: str = "metric"
    direction: Literal["higher", "lower"] = "higher"
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.arm == self.than:
            raise TikhonError(f"An expectation compares two arms, not {self.arm!r} with itself.")
        if self.direction not in ("higher", "lower") or not math.isfinite(self.margin):
            raise TikhonError(
                f"An expectation says 'higher' or 'lower' by a finite margin, not {self.direction!r} by {self.margin}."
            )


@dataclass(frozen=True)
class Study:
    """What is asked, who competes, and what the paper lets us expect.

    arms: arm -> its candidates. Every arm gets the same number of candidates and chooses among them by the mean of the
    measure `validation` over all seeds, so that no arm is tuned harder than another.
    """

    question: str
    arms: Mapping[str, Sequence[Settings]]
    run: Run
    expectations: Sequence[Expectation]
    seeds: int = 5
    setting: str = ""
    """What was trained on what, for the reader of the table."""

    def __post_init__(self) -> None:
        budgets = {len(candidates) for candidates in self.arms.values()}
        if len(budgets) != 1 or 0 in budgets:
            raise TikhonError(f"Every arm of a study gets the same number of candidates, not {sorted(budgets)}.")
        if not self.expectations:
            raise TikhonError("A study that expects nothing cannot be met or missed: give it an Expectation.")
        if self.seeds < 2:
            raise TikhonError(f"A study needs an interval, so two seeds at the least, not {self.seeds}.")
        named = {name for one in self.expectations for name in (one.arm, one.than)}
        if not named <= set(self.arms):
            raise TikhonError(f"Expectations speak of arms that the study lacks: {', '.join(named - set(self.arms))}.")

    def trials(self) -> Iterator[tuple[str, int, int]]:
        """(arm, which candidate, seed) of every run."""
        for seed in range(self.seeds):
            for arm, candidates in self.arms.items():
                for number in range(len(candidates)):
                    yield arm, number, seed


def training(
    *, task: Mapping[str, Any], model: str = "mlp", epochs: int, batch_size: int = 128, optimizer: str = "sgd"
) -> Run:
    """The usual study: train the arm `settings["recipe"]` on an embedded task.

    settings may also hold learning_rate. Measures: metric (test), train (on the labels as given, so with label noise
    the share of them that is fitted), validation, gap, calibration_error, seconds and peak_memory (bytes).
    """
    return functools.partial(_train, dict(task), model, epochs, batch_size, optimizer)


def _train(
    task: dict[str, Any],
    model: str,
    epochs: int,
    batch_size: int,
    optimizer: str,
    settings: Settings,
    seed: int,
    report: Report,
) -> dict[str, float]:
    try:
        result = run_cell(
            cell(
                task=task,
                model=model,
                arm=settings["recipe"],
                seed=seed,
                epochs=epochs,
                batch_size=batch_size,
                optimizer=optimizer,
                learning_rate=settings.get("learning_rate"),
            ),
            report,
        )
    except Diverged:  # a learning rate that is too high loses the search, it does not end the study
        return {"validation": math.nan}
    measures = {name: result[name] for name in MEASURES}
    measures |= {"validation": result["validation_metric"], "train": result["train_metric"]}
    return {name: value for name, value in measures.items() if value is not None}


def recipes(*names: str) -> list[dict[str, str]]:
    """Candidates that differ in their recipe."""
    return [{"recipe": name} for name in names]


def plain(count: int, recipe: str = "none", rates: Sequence[float] = (0.1, 0.05, 0.2, 0.02, 0.4)) -> list[Settings]:
    """`count` candidates of plain training: what it can tune is its learning rate."""
    return [{"recipe": recipe, "learning_rate": rate} for rate in rates[:count]]


def find_study(family: str, name: str) -> Study:
    """The study of a method, in the file that mirrors the method's."""
    if not study_path(family, name).exists():
        raise TikhonError(f"{name} has no study yet: it would be in studies/{family}/{name}.py.")
    study = getattr(importlib.import_module(f"tikhon.studies.{family}.{name}"), "study", None)
    if not isinstance(study, Study):
        raise TikhonError(f"studies/{family}/{name}.py must define `study = Study(...)`.")
    return study


def study_path(family: str, name: str) -> Path:
    """Where the study of a method is, or would be."""
    return STUDIES / family / f"{name}.py"
