"""Strengths: every schedule at its corners, and wrong arguments."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from tikhon import L2, Learned, TikhonError, cosine, exponential, linear, logistic, stepwise
from tikhon.core.strength import Schedule, Strength, checked, resolve


def at(strength: Strength, progress: float = 0.0, *, number: int = 0, epoch_progress: float = 0.0) -> float:
    return resolve(strength, SimpleNamespace(progress=progress, number=number, epoch_progress=epoch_progress))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (0.3, {0.0: 0.3, 1.0: 0.3}),
        (linear(1, 3), {0.0: 1, 0.25: 1.5, 0.5: 2, 1.0: 3}),
        (linear(1, 3, over=(0.5, 0.75)), {0.0: 1, 0.5: 1, 0.625: 2, 0.75: 3, 1.0: 3}),
        (linear(3, 3), {0.0: 3, 1.0: 3}),
        (cosine(1, 3), {0.0: 1, 1 / 3: 1.5, 0.5: 2, 1.0: 3}),
        (cosine(3, 1, over=(0.2, 0.4)), {0.0: 3, 0.2: 3, 0.3: 2, 0.4: 1, 1.0: 1}),
        (exponential(1, 100), {0.0: 1, 0.5: 10, 1.0: 100}),
        (exponential(8, 2, over=(0.0, 0.5)), {0.0: 8, 0.25: 4, 0.5: 2, 1.0: 2}),
        (logistic(0, 1), {0.0: 0.0, 0.1: math.tanh(0.5), 0.5: math.tanh(2.5), 1.0: math.tanh(5.0)}),
        (logistic(3, 1, over=(0.5, 0.75)), {0.0: 3, 0.5: 3, 0.55: 3 - 2 * math.tanh(1.0), 1.0: 3 - 2 * math.tanh(5.0)}),
        (stepwise({0.0: 1.0, 0.5: 0.1}), {0.0: 1.0, 0.4999: 1.0, 0.5: 0.1, 1.0: 0.1}),
        (stepwise({0.5: 0.1, 0.25: 7.0}), {0.0: 7.0, 0.25: 7.0, 0.4: 7.0, 0.5: 0.1, 1.0: 0.1}),
        (stepwise({0.3: 2.0}), {0.0: 2.0, 1.0: 2.0}),
    ],
)
def test_schedules_at_their_corners(schedule: Strength, values: dict[float, float]) -> None:
    for progress, value in values.items():
        assert at(schedule, progress) == pytest.approx(value)


def test_ends_are_exact() -> None:
    for schedule in (linear(0.1, 0.3), cosine(0.1, 0.3), exponential(0.1, 0.3)):
        assert at(schedule, 0.0) == pytest.approx(0.1, abs=1e-16)
        assert at(schedule, 1.0) == pytest.approx(0.3, abs=1e-16)


def test_schedules_by_step_and_by_epoch() -> None:
    by_step = linear(0, 1, over=(10, 20), by="step")
    assert [at(by_step, 0.9, number=n) for n in (0, 10, 15, 20, 1000)] == [0, 0, 0.5, 1, 1]
    by_epoch = linear(0, 1, by="epoch")
    assert [at(by_epoch, 0.9, epoch_progress=p) for p in (0.25, 1.0)] == [0.25, 1.0]
    levels = stepwise({0: 1.0, 100: 2.0}, by="step")
    assert [at(levels, number=n) for n in (0, 99, 100)] == [1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "build",
    [
        lambda: linear(0, 1, by="time"),  # type: ignore[arg-type]
        lambda: linear(0, math.nan),
        lambda: linear(math.inf, 1),
        lambda: linear("0", 1),  # type: ignore[arg-type]
        lambda: linear(0, 1, over=(0.5, 0.5)),
        lambda: linear(0, 1, over=(1.0, 0.0)),
        lambda: linear(0, 1, over=0.5),  # type: ignore[arg-type]
        lambda: linear(0, 1, over=(0.0, 0.5, 1.0)),  # type: ignore[arg-type]
        lambda: linear(0, 1, by="step"),
        lambda: cosine(0, 1, over=(0.0, math.nan)),
        lambda: exponential(0, 1),
        lambda: exponential(1, -1),
        lambda: exponential(math.nan, 1),
        lambda: exponential("1", 2),  # type: ignore[arg-type]
        lambda: stepwise({}),
        lambda: stepwise({0.0: math.nan}),
        lambda: stepwise({"a": 1.0}),  # type: ignore[dict-item]
        lambda: stepwise([(0.0, 1.0)]),  # type: ignore[arg-type]
        lambda: stepwise({0.0: 1.0}, by="time"),  # type: ignore[arg-type]
    ],
)
def test_wrong_schedules_are_refused(build: Any) -> None:
    with pytest.raises(TikhonError):
        build()


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1", None, True, linear(1, -1), stepwise({0: 1, 0.5: -2})])
def test_strengths_outside_their_range_are_refused_with_their_name(value: Any) -> None:
    with pytest.raises(TikhonError, match="strength must be"):
        L2(strength=value)


def test_checked_returns_numbers_and_schedules() -> None:
    assert checked("x", 1, 0.0, 1.0) == 1.0
    assert isinstance(checked("x", 1), float)
    assert checked("x", linear(0, 1), 0.0, 1.0) == Schedule("linear", 0.0, 1.0)
    with pytest.raises(TikhonError, match=r"x must be a finite number in \[0, 1\], not 2"):
        checked("x", linear(0, 2), 0.0, 1.0)


@pytest.mark.parametrize(
    "reckon", [lambda one: one > 0.0, lambda one: one <= 1, lambda one: 2 * one, lambda one: one / 2, math.isfinite]
)
def test_what_changes_is_no_number(reckon: Any) -> None:
    for strength in (linear(0, 1), Learned(0.5, 0.1, 0.9)):
        with pytest.raises(TikhonError, match="A number is needed where"):
            reckon(strength)
        assert strength != 0.5
