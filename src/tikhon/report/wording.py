"""How a comparison's numbers are written: the columns of its table and the one sentence that sums it up.

The terminal and the page both show these, so that they cannot disagree.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tikhon.report.comparison import BASELINE, Arm, Comparison

MISSING = "-"
CLEAR_MARK = "*"
CLEAR_NOTE = (
    f"{CLEAR_MARK} the 95% interval of the paired difference to none excludes zero "
    "(each arm by itself, not adjusted for the number of arms)"
)


@dataclass(frozen=True)
class Column:
    """One column of the table: ``value`` is what it sorts by (None goes last), ``text`` what it shows."""

    header: str
    short: str
    about: str
    value: Callable[[Arm], float | None]
    text: Callable[[Arm], str]


def in_percent(comparison: Comparison) -> bool:
    """Whether the metric reads as percent (an accuracy) or as a number (R squared)."""
    return bool(comparison.task.get("metric", "accuracy") != "r2")


def metric_name(comparison: Comparison) -> str:
    """The metric's name for people."""
    return str(comparison.task.get("metric", "accuracy")).replace("_", " ") if in_percent(comparison) else "R²"


def title(comparison: Comparison) -> str:
    """What was compared on what, in a few words."""
    return f"Comparison on {comparison.task.get('data', 'a task')}"


def settings(comparison: Comparison) -> list[tuple[str, str]]:
    """The task's settings as pairs of words; what is None was not set and is left out."""
    return [(key.replace("_", " "), _setting(value)) for key, value in comparison.task.items() if value is not None]


def number(comparison: Comparison, value: float | None) -> str:
    """A metric or a difference of metrics: percent with one decimal, R squared with three."""
    if value is None or not math.isfinite(value):
        return MISSING
    scaled, digits = (100 * value, 1) if in_percent(comparison) else (value, 3)
    return f"{round(scaled, digits) + 0.0:.{digits}f}"  # adding 0.0 turns -0.0 into 0.0


def signed(comparison: Comparison, value: float | None) -> str:
    """A difference of metrics with its sign."""
    text = number(comparison, value)
    return text if value is None or text == MISSING or text.startswith("-") else f"+{text}"


def interval(comparison: Comparison, low: float | None, high: float | None) -> str:
    """An interval of a metric or of a difference, in the metric's unit."""
    bounds = [number(comparison, low), number(comparison, high)]
    return MISSING if MISSING in bounds else f"[{', '.join(bounds)}]"


def columns(comparison: Comparison) -> list[Column]:
    """The columns that follow the arm's name; those that no arm has a value for are left out."""
    unit = " %" if in_percent(comparison) else ""
    points = ", points" if in_percent(comparison) else ""
    name = metric_name(comparison)

    every = [
        Column(
            f"{name}{unit}",
            "test\n%" if unit else name,
            "mean over seeds, on the test split",
            lambda arm: arm.mean,
            lambda arm: number(comparison, arm.mean) if arm.finished or not arm.failed else "diverged",
        ),
        Column(
            "95% interval",
            "95%\ninterval",
            "of the mean",
            lambda arm: arm.low,
            lambda arm: interval(comparison, arm.low, arm.high),
        ),
        Column(
            f"difference to none{points}",
            "vs\nnone",
            "mean over seeds of the paired difference; * where its interval excludes zero",
            lambda arm: arm.difference,
            lambda arm: signed(comparison, arm.difference) + (CLEAR_MARK if arm.differs else ""),
        ),
        Column(
            "95% interval of difference",
            "95%\ninterval",
            "of the paired difference",
            lambda arm: arm.difference_low,
            lambda arm: interval(comparison, arm.difference_low, arm.difference_high),
        ),
        Column(
            "calibration error %",
            "calib.\nerror %",
            "expected calibration error: mean distance of confidence from accuracy, in percent",
            lambda arm: arm.calibration_error,
            lambda arm: _percent(arm.calibration_error),
        ),
        Column(
            f"train-test gap{points}",
            "gap",
            "metric on the training data minus metric on the test data",
            lambda arm: arm.gap,
            lambda arm: signed(comparison, arm.gap),
        ),
        Column("time", "time", "times none", lambda arm: arm.relative_time, lambda arm: _ratio(arm.relative_time)),
        Column(
            "memory",
            "mem.",
            "times none",
            lambda arm: arm.relative_memory,
            lambda arm: _ratio(arm.relative_memory),
        ),
    ]
    return [column for column in every if any(column.value(arm) is not None for arm in comparison.arms)]


def finding(comparison: Comparison) -> str:
    """The sentence that the intervals support, and no more than they support."""
    best, baseline = comparison.best, comparison.baseline
    metric = metric_name(comparison)
    if not math.isfinite(best.mean):
        return "No arm ended with a finite metric: nothing can be concluded."
    mean = f"{number(comparison, best.mean)}{'%' if in_percent(comparison) else ''}"
    if baseline is None:
        return f"{best.name} has the highest {metric} ({mean}); without the arm {BASELINE} no difference was measured."
    methods = [arm for arm in comparison.arms if arm is not baseline]
    if not methods:
        return f"Only {BASELINE} ran: {metric} {mean}, with nothing to compare it to."
    measured = [arm for arm in methods if arm.difference_low is not None and math.isfinite(arm.difference_low)]
    if not measured:
        return (
            f"{best.name} has the highest {metric} ({mean}), but without an interval (run more than one seed) "
            f"no arm can be told from {BASELINE}."
        )
    better = [arm for arm in measured if arm.differs and _difference(arm) > 0]
    worse = [arm for arm in measured if arm.differs and _difference(arm) < 0]
    also_worse = f"; clearly worse: {', '.join(arm.name for arm in worse)}" if worse else ""
    if not better and not worse:
        top = max(measured, key=_difference)
        return (
            f"No arm differs clearly from {BASELINE}: every 95% interval of the paired difference includes zero "
            f"(highest: {top.name}, {_evidence(comparison, top)})."
        )
    if not better:
        return f"No arm is clearly better than {BASELINE}{also_worse} ({_evidence(comparison, worse[0])})."
    top = max(better, key=_difference)
    unclear = f"; {best.name} has the highest mean, but its difference is not clear" if best not in better else ""
    return (
        f"{top.name} has the largest clear gain over {BASELINE}: {_evidence(comparison, top)}; "
        f"{len(better)} of {len(methods)} arms {'is' if len(better) == 1 else 'are'} clearly better than {BASELINE}"
        f"{also_worse}{unclear}."
    )


def failures(comparison: Comparison) -> list[str]:
    """A sentence for each arm with runs that diverged: how many, and why the first of them did."""
    sentences = []
    for arm in comparison.arms:
        if arm.failed:
            seed, reason = next(iter(arm.failed.items()))
            which = ", ".join(str(one) for one in arm.failed)
            rest = "; its numbers are those of the other seeds" if arm.finished else ""
            sentences.append(
                f"{arm.name} diverged in {len(arm.failed)} of {len(arm.seeds)} seeds ({which}){rest}. "
                f"Seed {seed}: {reason}"
            )
    return sentences


def _evidence(comparison: Comparison, arm: Arm) -> str:
    unit = "points" if in_percent(comparison) else metric_name(comparison)
    low, high = number(comparison, arm.difference_low), number(comparison, arm.difference_high)
    seeds = len(comparison.paired(arm))
    return f"{signed(comparison, arm.difference)} {unit}, 95% interval {low} to {high}, {seeds} seeds"


def _difference(arm: Arm) -> float:
    return arm.difference if arm.difference is not None and math.isfinite(arm.difference) else -math.inf


def _percent(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def _ratio(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{value:.2f}x"


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_setting(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={_setting(item)}" for key, item in value.items())
    return str(value)
