import math

import pytest

from tikhon.report.summary import pooled, summarise


def run(metric: float, *, seconds: float = 1.0, best: int | None = None, **more: object) -> dict[str, object]:
    return {
        "metric_name": "accuracy",
        "metric": metric,
        "gap": 0.1,
        "calibration_error": 0.2,
        "reliability": None,
        "best_epoch": best,
        "seconds": seconds,
        "peak_memory": 100,
        "curves": {"train_loss": [3.0, 2.0, 1.0, 0.5], "validation_metric": [0.2, 0.6, 0.6, 0.4]},
        **more,
    }


FAILED = {"failed": "the loss is nan"}


def test_differences_and_ratios_are_over_the_seeds_that_finished_in_both_arms() -> None:
    shown = summarise(
        {},
        {
            "none": {0: run(0.5, seconds=2.0), 1: FAILED, 2: run(0.7, seconds=1.0)},
            "elr": {0: run(0.6, seconds=3.0), 1: run(0.9, seconds=9.0), 2: FAILED},
        },
    )
    none, elr = shown.arms
    assert none.mean == pytest.approx(0.6)
    assert elr.mean == pytest.approx(0.75)
    assert elr.difference == pytest.approx(0.1)
    assert elr.difference_low is None
    assert elr.relative_time == pytest.approx(1.5)
    assert shown.paired(elr) == [pytest.approx(0.1)]
    assert elr.failed == {2: "the loss is nan"}
    assert elr.seeds[2] == {"seed": 2, "metric": None, "failed": "the loss is nan"}
    assert len(elr.curves["train_loss"]) == 2


def test_an_arm_that_never_finished_has_no_numbers_and_is_not_the_best() -> None:
    shown = summarise({}, {"none": {0: run(0.5), 1: run(0.6)}, "elr": {0: FAILED, 1: FAILED}})
    assert math.isnan(shown.arms[1].mean)
    assert shown.arms[1].difference is None
    assert shown.arms[1].relative_time is None
    assert shown.best.name == "none"


def test_one_slow_run_does_not_move_the_relative_time() -> None:
    plain = {seed: run(0.5, seconds=1.0) for seed in range(5)}
    slowed = {seed: run(0.5, seconds=100.0 if seed == 3 else 1.25) for seed in range(5)}
    assert summarise({}, {"none": plain, "elr": slowed}).arms[1].relative_time == pytest.approx(1.25)


def test_early_stopping_is_drawn_as_what_it_keeps() -> None:
    shown = summarise({}, {"none": {0: run(0.5)}, "early_stopping": {0: run(0.5, best=1)}})
    assert shown.arms[0].curves["train_loss"] == [[3.0, 2.0, 1.0, 0.5]]
    assert shown.arms[1].curves["train_loss"] == [[3.0, 2.0, 2.0, 2.0]]
    assert shown.arms[1].curves["validation_metric"] == [[0.2, 0.6, 0.6, 0.6]]


def test_pooled_bins_are_weighted_by_their_counts() -> None:
    one = {"confidence": [None, 0.6, 0.9], "accuracy": [None, 0.5, 1.0], "count": [0, 2, 8]}
    two = {"confidence": [None, 0.7, None], "accuracy": [None, 1.0, None], "count": [0, 6, 0]}
    found = pooled([one, None, two])
    assert found is not None
    assert found["count"] == [0, 8, 8]
    assert found["confidence"] == [None, pytest.approx((2 * 0.6 + 6 * 0.7) / 8), pytest.approx(0.9)]
    assert found["accuracy"] == [None, pytest.approx((2 * 0.5 + 6 * 1.0) / 8), pytest.approx(1.0)]
    assert pooled([None]) is None
