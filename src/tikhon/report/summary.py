"""From the results of single runs to what a comparison shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum, nan
from statistics import fmean, median
from typing import Any

from tikhon.math.statistics import mean_interval, paired_difference
from tikhon.measures.calibration import PlainReliability
from tikhon.report.comparison import BASELINE, Arm, Comparison

Result = Mapping[str, Any]
"""What `studies.experiment.run_cell` returns, or {"failed": why} for a run that diverged."""

_NOT_SCALAR = ("metric_name", "curves", "reliability")


def summarise(task: Mapping[str, Any], results: Mapping[str, Mapping[int, Result]]) -> Comparison:
    """Sum up each arm over its seeds, and against `none`.

    task: settings by name, for the reader. results: arm -> seed -> result, in the order to show. Statistics are over
    the seeds that finished, differences and ratios over those that finished in both arms. Time and memory are medians
    of the ratios seed by seed: one run that was slowed down by something else does not count for more than one run.
    """
    plain = results.get(BASELINE, {})
    return Comparison(dict(task), [_arm(name, runs, plain) for name, runs in results.items()])


def _arm(name: str, runs: Mapping[int, Result], plain: Mapping[int, Result]) -> Arm:
    finished = [run for run in runs.values() if "failed" not in run]
    pairs = [
        (run, plain[seed])
        for seed, run in runs.items()
        if "failed" not in run and "failed" not in plain.get(seed, {"failed": "did not run"})
    ]
    mean, low, high = mean_interval([run["metric"] for run in finished]) if finished else (nan, None, None)
    difference: tuple[float | None, float | None, float | None] = (None, None, None)
    if pairs and name != BASELINE:
        difference = paired_difference([run["metric"] for run, _ in pairs], [other["metric"] for _, other in pairs])
    return Arm(
        name=name,
        mean=mean,
        low=low,
        high=high,
        difference=difference[0],
        difference_low=difference[1],
        difference_high=difference[2],
        calibration_error=_mean([run["calibration_error"] for run in finished]),
        gap=_mean([run["gap"] for run in finished]),
        relative_time=_ratio(pairs, "seconds"),
        relative_memory=_ratio(pairs, "peak_memory"),
        seeds=[_scalars(seed, run) for seed, run in runs.items()],
        curves=_by_name([delivered_curves(run) for run in finished]),
        reliability=pooled([run["reliability"] for run in finished]),
    )


def delivered_curves(run: Result) -> dict[str, list[float]]:
    """The curves of what training would have delivered after each epoch: with early stopping, its best epoch so far."""
    curves: dict[str, list[float]] = run["curves"]
    if run["best_epoch"] is None:
        return curves
    best, kept = 0, []
    for epoch, value in enumerate(curves["validation_metric"]):
        best = epoch if value > curves["validation_metric"][best] else best
        kept.append(best)
    return {name: [values[epoch] for epoch in kept] for name, values in curves.items()}


def _by_name(runs: Sequence[Mapping[str, list[float]]]) -> dict[str, list[list[float]]]:
    return {name: [curves[name] for curves in runs] for name in (runs[0] if runs else ())}


def pooled(diagrams: Sequence[PlainReliability | None]) -> PlainReliability | None:
    """The diagram of all predictions together: the mean of each bin, weighted by how many predictions each holds."""
    known = [diagram for diagram in diagrams if diagram is not None]
    if not known:
        return None
    counts = [sum(counts) for counts in zip(*(diagram["count"] for diagram in known), strict=True)]
    return PlainReliability(
        confidence=_weighted([(diagram["confidence"], diagram["count"]) for diagram in known], counts),
        accuracy=_weighted([(diagram["accuracy"], diagram["count"]) for diagram in known], counts),
        count=counts,
    )


def _weighted(
    rows: Sequence[tuple[Sequence[float | None], Sequence[int]]], totals: Sequence[int]
) -> list[float | None]:
    """Bin by bin the mean of the rows' values, each weighted by its count; None for a bin that is empty in all."""
    sums = [fsum((values[bin] or 0.0) * counts[bin] for values, counts in rows) for bin in range(len(totals))]
    return [value / total if total else None for value, total in zip(sums, totals, strict=True)]


def _scalars(seed: int, run: Result) -> dict[str, Any]:
    if "failed" in run:
        return {"seed": seed, "metric": None, "failed": run["failed"]}
    return {"seed": seed, **{name: value for name, value in run.items() if name not in _NOT_SCALAR}}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _ratio(pairs: Sequence[tuple[Result, Result]], name: str) -> float | None:
    return median([run[name] / other[name] for run, other in pairs]) if pairs else None
