"""Outliers of a series: the spline is scipy's, spikes go, the end stays, short series are left alone."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import LSQUnivariateSpline

from tikhon.math.outliers import quadratic_spline, without_outliers

T = torch.linspace(2.0, 9.0, 80, dtype=torch.float64)
LOSS = torch.exp(-T) + 0.05 * torch.randn(80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_spline_is_that_of_scipy() -> None:
    knots = [2.0 + 7.0 * share for share in (0.125, 0.25, 0.5)]
    expected = LSQUnivariateSpline(T.numpy(), LOSS.numpy(), knots, k=2)(T.numpy())
    np.testing.assert_allclose(quadratic_spline(T, LOSS), expected, rtol=1e-8)


def test_spikes_go_and_nothing_else() -> None:
    spoilt = LOSS.clone()
    spoilt[[3, 20, 33]] += torch.tensor([2.0, -3.0, 9.0], dtype=torch.float64)
    kept = without_outliers(T, spoilt, count=1, rounds=3)
    assert sorted(set(range(80)) - set(kept.tolist())) == [3, 20, 33]


def test_the_second_half_is_kept_unless_asked_for() -> None:
    spoilt = LOSS.clone()
    spoilt[70] += 9.0
    assert 70 in without_outliers(T, spoilt, count=3, rounds=5)
    assert 70 not in without_outliers(T, spoilt, count=1, until=1.0)


def test_twelve_points_are_left() -> None:
    assert len(without_outliers(T[:14], LOSS[:14], count=1, rounds=10, until=1.0)) == 12
    assert len(without_outliers(T[:11], LOSS[:11], count=1, rounds=10, until=1.0)) == 11
