"""Power laws: exact recovery, scipy's fit and errors, the bounds, and what cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from tikhon import TikhonError
from tikhon.math.power_law import PowerLaw, fitted_power_law, law_derivatives, power_law_covariance

X = torch.logspace(1, 4, 12, dtype=torch.float64)


def noisy(floor: float, scale: float, exponent: float, spread: float = 0.01):
    noise = torch.randn(len(X), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return floor + scale * X**-exponent + spread * noise


@pytest.mark.parametrize("law", [(1.2, 3.0, 0.07), (0.5, 2.0, 0.5), (0.0, 10.0, 1.5), (7.0, 1e3, 3.0)])
def test_exact_curves_are_recovered(law) -> None:
    torch.testing.assert_close(
        torch.stack(fitted_power_law(X, noisy(*law, spread=0.0))),
        torch.tensor(law, dtype=torch.float64),
        rtol=1e-7,
        atol=1e-7,
    )


@pytest.mark.parametrize("law", [(1.2, 3.0, 0.3), (0.5, 2.0, 0.5), (1.0, 4.0, 1.0)])
def test_fit_and_errors_are_those_of_scipy(law) -> None:
    loss = noisy(*law)
    expected, covariance = curve_fit(
        lambda x, floor, scale, exponent: floor + scale * x**-exponent, X.numpy(), loss.numpy(), p0=law, xtol=1e-14
    )
    found = fitted_power_law(X, loss)
    np.testing.assert_allclose(torch.stack(found), expected, rtol=1e-5)
    np.testing.assert_allclose(power_law_covariance(found, X, loss), covariance, rtol=1e-3)


def test_floor_and_scale_stay_above_zero() -> None:
    falling_below = 1.0 - 0.1 * X.log()  # straight in log x: its floor would be far below zero
    found = fitted_power_law(X, falling_below.clamp_min(0.01))
    assert found.floor == 0
    rising = fitted_power_law(X, X.log())
    assert rising.scale == 0
    torch.testing.assert_close(rising.floor, X.log().mean())


def test_units_of_x_do_not_matter() -> None:
    loss = noisy(0.5, 2.0, 0.5)
    one, other = fitted_power_law(X, loss), fitted_power_law(1e9 * X, loss)
    torch.testing.assert_close(one.at(X), other.at(1e9 * X), rtol=1e-7, atol=0.0)
    torch.testing.assert_close(other.scale, one.scale * 1e9**one.exponent, rtol=1e-5, atol=0.0)


def test_derivatives_are_those_of_autograd() -> None:
    law = PowerLaw(*torch.tensor([0.5, 2.0, 0.7], dtype=torch.float64))
    expected = torch.func.jacrev(lambda values: PowerLaw(*values).at(X))(torch.stack(law))
    torch.testing.assert_close(law_derivatives(law, X), expected)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"at least three x.*\(2,\) and \(2,\)"):
        fitted_power_law(X[:2], X[:2])
    with pytest.raises(TikhonError, match="positive x"):
        fitted_power_law(X - X[0], X)
    with pytest.raises(TikhonError, match="not all alike"):
        fitted_power_law(torch.ones(4), torch.rand(4))
    with pytest.raises(TikhonError, match="finite losses"):
        fitted_power_law(X, X / 0.0)
    with pytest.raises(TikhonError, match="3 points"):
        power_law_covariance(fitted_power_law(X[:3], X[:3]), X[:3], X[:3])
