"""Exponentials with a floor: exact recovery, scipy's fit, the bounds, forecasts beside outliers, wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from tikhon import TikhonError
from tikhon.math.exponential import fitted_exponential, forecast

T = torch.arange(60.0, dtype=torch.float64)


def series(floor: float, scale: float, rate: float, spread: float = 0.0):
    noise = torch.randn(len(T), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return floor + scale * torch.exp(-rate * T) + spread * noise


@pytest.mark.parametrize("law", [(0.5, 2.0, 0.03), (0.0, 2.3, 0.005), (1.0, -0.7, 0.2), (0.2, 1.0, 2.0)])
def test_exact_series_are_recovered(law) -> None:
    found = torch.stack(fitted_exponential(T, series(*law)))
    torch.testing.assert_close(found, torch.tensor(law, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_the_fit_is_that_of_scipy() -> None:
    loss = series(0.5, 2.0, 0.08, spread=0.05)
    expected, _ = curve_fit(lambda t, c, a, r: c + a * np.exp(-r * t), T.numpy(), loss.numpy(), p0=(0.5, 2.0, 0.1))
    np.testing.assert_allclose(torch.stack(fitted_exponential(T, loss)), expected, rtol=1e-4)


def test_the_floor_keeps_to_its_bound_and_the_fit_is_the_best_that_does() -> None:
    line = 2.0 - 0.01 * T
    assert fitted_exponential(T, line, floor=-torch.inf).floor < -1.0
    held = fitted_exponential(T, line, floor=0.25)
    assert held.floor == 0.25
    a, r = curve_fit(lambda t, a, r: 0.25 + a * np.exp(-r * t), T.numpy(), line.numpy(), p0=(1.7, 0.01))[0]
    np.testing.assert_allclose([held.scale, held.rate], [a, r], rtol=1e-5)


def test_what_rises_may_be_held_flat() -> None:
    rising = series(3.0, -1.0, 0.05)
    assert fitted_exponential(T, rising).scale < 0
    flat = fitted_exponential(T, rising, rising=False)
    assert flat.scale == 0
    torch.testing.assert_close(flat.floor, rising.mean())


def test_units_and_the_start_of_t_do_not_matter() -> None:
    loss = series(0.5, 2.0, 0.05, spread=0.02)
    one, other = fitted_exponential(T, loss), fitted_exponential(10.0 * T + 50.0, loss)
    torch.testing.assert_close(one.at(T), other.at(10.0 * T + 50.0), rtol=1e-9, atol=1e-9)


def test_an_outlier_at_the_start_does_not_move_the_forecast() -> None:
    loss = series(0.5, 2.0, 0.03)
    spoilt = loss.clone()
    spoilt[[4, 15]] += 30.0
    at = 600.0
    assert abs(forecast(T, spoilt, at, count=0, rounds=0) - 0.5) > 0.05
    torch.testing.assert_close(forecast(T, spoilt, at, count=2, rounds=3), loss.new_tensor(0.5), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("drop", [0.004 * T, 1e-4 * T**2, 0.2 * torch.sigmoid(0.2 * (T - 50.0))])
def test_losses_that_fall_in_a_line_or_ever_faster_are_not_carried_on(drop) -> None:
    loss = 2.0 - drop
    expected = forecast(T, loss, at=600.0, count=0, rounds=0)
    assert abs(expected - loss[-1]) < 0.1
    assert fitted_exponential(T, loss).at(torch.tensor(600.0)) < loss[-1] - 0.15  # where the exponential itself leads
    bent = series(0.5, 2.0, 1.1 / 59.0)  # falls by a little more than a factor of e
    assert forecast(T, bent, at=600.0, count=0, rounds=0) == pytest.approx(0.5, abs=1e-4)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"at least three t.*\(2,\) and \(2,\)"):
        fitted_exponential(T[:2], T[:2])
    with pytest.raises(TikhonError, match="not all alike"):
        fitted_exponential(torch.ones(4), torch.rand(4))
    with pytest.raises(TikhonError, match="finite values"):
        fitted_exponential(T, T / 0.0)
