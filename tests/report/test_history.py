"""Findings of a history: fifths of the held-out metric against each other, by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import pytest
from scipy import stats

from tikhon.core.errors import TikhonError
from tikhon.core.fit import History
from tikhon.report.checks import CHECKS
from tikhon.report.curves import curves_of
from tikhon.report.history import past_best, still_rising

FALLING = [0.5, 0.6, 0.90, 0.92, 0.91, 0.90, 0.84, 0.82, 0.80, 0.78]
RISING = [0.10, 0.12, 0.3, 0.32, 0.5, 0.52, 0.70, 0.71, 0.80, 0.81]


@dataclass
class Seen:
    histories: list[dict[str, list[float]]]


def seen(*curves: list[float], name: str = "test_metric") -> Seen:
    return Seen([{"train_loss": [0.0], name: values} for values in curves])


def test_the_fall_is_from_the_surest_of_the_earlier_fifths_with_welchs_interval_for_four() -> None:
    found = past_best(seen(FALLING))
    before, last = FALLING[2:4], FALLING[8:]
    interval = stats.ttest_ind(before, last, equal_var=False).confidence_interval(1 - 0.05 / 4)
    assert found.value == pytest.approx(fmean(before) - fmean(last))
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.where == "since epochs 3 to 4"
    assert CHECKS["past its best"].weight(found) < 1.0  # two epochs a fifth say little
    longer = past_best(seen([value for value in FALLING for _ in range(5)]))
    assert CHECKS["past its best"].weight(longer) > 1.0


def test_what_rises_to_the_end_has_not_fallen_and_is_not_finished() -> None:
    steep = [0.01 * epoch for epoch in range(60)]
    assert past_best(seen(steep)).high < 0.0
    found = still_rising(seen(steep))
    assert found.value == pytest.approx(0.12)
    assert CHECKS["unfinished"].weight(found) > 1.0
    assert CHECKS["unfinished"].weight(still_rising(seen([0.9, 0.91] * 10))) < 1.0


def test_several_trainings_have_an_interval_over_trainings() -> None:
    others = [[value + shift for value in RISING[:8]] + [0.8 - shift, 0.8] for shift in (0.0, 0.02, 0.05)]
    found = still_rising(seen(*others))
    rises = [fmean(one[8:]) - fmean(one[6:8]) for one in others]
    low, high = stats.t.interval(0.95, 2, loc=fmean(rises), scale=stats.sem(rises))
    assert (found.value, found.low, found.high) == pytest.approx((fmean(rises), low, high))


def test_validation_goes_before_test() -> None:
    both = Seen([{"test_metric": RISING, "validation_metric": FALLING}])
    assert past_best(both) == past_best(seen(FALLING))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Seen([{}]), "There is no history"),
        (seen(FALLING, name="accuracy"), "has train_loss, accuracy, but no metric called validation or test"),
        (seen(FALLING[:9]), "has 9 epochs; 10 are needed"),
        (seen([*FALLING, math.nan]), "not finite in each epoch"),
    ],
)
def test_what_is_missing_is_said(given: Seen, said: str) -> None:
    for read in (past_best, still_rising):
        with pytest.raises(TikhonError, match=said):
            read(given)


def test_a_history_ends_with_the_epoch_that_was_kept() -> None:
    history = History(train_loss=[3.0, 2.0, 1.0], metrics={"validation": [0.1, 0.3, 0.2]}, best_epoch=1)
    assert curves_of(history) == {"train_loss": [3.0, 2.0], "validation_metric": [0.1, 0.3]}
    assert curves_of({"test_metric": (1.0,)}) == {"test_metric": [1.0]}
    assert curves_of(None) == {}
