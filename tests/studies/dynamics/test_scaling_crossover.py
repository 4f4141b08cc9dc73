"""Scaling-law crossover: analytic crossings, the interval's coverage, and the study in its quick form."""

from __future__ import annotations

import math

import pytest
import torch

from tikhon import TikhonError
from tikhon.math.power_law import PowerLaw
from tikhon.studies.dynamics.scaling_crossover import SIZES, _interpolated_crossing, crossover, run

X = torch.logspace(0, 3, 10, dtype=torch.float64)


def curve(floor: float, scale: float, exponent: float) -> torch.Tensor:
    return PowerLaw(*torch.tensor([floor, scale, exponent], dtype=torch.float64)).at(X)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.0, 4.0, 0.5), (0.0, 1.0, 0.25), 4.0**4),  # 4 x^-1/2 = x^-1/4
        ((0.0, 9.0, 0.5), (0.0, 1.0, 0.25), 9.0**4),  # beyond the last point
        ((0.2, 3.0, 0.5), (0.5, 2.0, 0.5), (1.0 / 0.3) ** 2),  # x^-1/2 = 0.3
    ],
)
def test_exact_laws_cross_where_algebra_says(first, second, expected: float) -> None:
    found = crossover(X, curve(*first), curve(*second))
    for one in found:  # without errors the interval is a point
        assert one.item() == pytest.approx(expected, rel=1e-3)
    assert crossover(X, curve(*second), curve(*first)).at.item() == pytest.approx(expected, rel=1e-3)


def test_laws_that_never_cross_give_nan() -> None:
    found = crossover(X, curve(0.5, 2.0, 0.5), curve(0.7, 2.0, 0.5))
    assert all(math.isnan(one) for one in found)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = []
    for _ in range(300):
        one, other = (
            curve(*law) + 0.02 * torch.randn(len(X), generator=generator, dtype=torch.float64)
            for law in ((0.2, 3.0, 0.5), (0.5, 2.0, 0.5))
        )
        _, low, high = crossover(X, one, other, level=0.8)
        covered.append(bool((low < (1.0 / 0.3) ** 2) & (high > (1.0 / 0.3) ** 2)))
    assert sum(covered) / 300 == pytest.approx(0.8, abs=0.1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TikhonError, match="level is 95"):
        crossover(X, X, X, level=95)
    with pytest.raises(TikhonError, match="3 points"):
        crossover(X[:3], curve(0.0, 4.0, 0.5)[:3], curve(0.0, 1.0, 0.25)[:3])


def test_measured_crossings_lie_between_two_sizes() -> None:
    x = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    assert _interpolated_crossing(x, torch.tensor([1.0, 1.0, -1.0]).double()).item() == pytest.approx(1000**0.5)
    assert _interpolated_crossing(x, torch.tensor([-1.0, 1.0, -1.0]).double()).item() == 1.0
    assert math.isnan(_interpolated_crossing(x, torch.ones(3).double()))


def test_quick_form() -> None:
    def measures(**settings: object) -> dict[str, float]:
        return run({"learning_rate": 0.01, "decay": 3.0, "steps": 150, **settings}, 100, lambda share: None)

    plain, decayed = measures(decay=0.0), measures(crossing="predicted")
    assert decayed["small"] < plain["small"]
    assert plain["large"] < plain["small"]
    assert 0.0 < decayed["crossing"] <= math.log2(1e6 * max(SIZES))
