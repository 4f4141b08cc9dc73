"""The Gaussian process: its posterior by the textbook, the bound's least place by search, what was given up."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from tikhon.math.gaussian_process import PLACES, best_place, next_place, posterior

TRIED, FOUND = [0.5, 0.0, 1.0, 0.72, 0.2], [1.0, 2.3, 1.9, 0.7, 1.8]


def matern(a, b, length):
    distance = np.sqrt(5.0) * np.abs(np.subtract.outer(np.asarray(a), np.asarray(b))) / length
    return (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)


def by_hand(tried, found, at):
    """Mean and deviation by Cholesky factors, the parameters by another optimiser from many starts."""
    y = np.asarray(found)
    middle, unit = y.mean(), y.std()
    z = (y - middle) / unit

    def covariance(log):
        constant, length, noise = np.exp(log)
        return constant * matern(tried, tried, length) + noise * np.eye(len(tried))

    def surprise(log):
        lower = np.linalg.cholesky(covariance(log))
        whitened = scipy.linalg.solve_triangular(lower, z, lower=True)
        return 0.5 * whitened @ whitened + np.log(np.diag(lower)).sum()

    bounds = np.log([(0.1, 10.0), (0.05, 1.0), (1e-6, 1.0)])
    found_at = scipy.optimize.minimize(surprise, np.log([1.0, 0.3, 0.01]), bounds=bounds, method="Powell", tol=1e-10)
    constant, length, noise = np.exp(found_at.x)
    inverse = np.linalg.inv(covariance(found_at.x))
    cross = constant * matern(at, tried, length)
    variance = constant + noise - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    return middle + unit * cross @ inverse @ z, unit * np.sqrt(variance)


def test_the_posterior_is_that_of_the_textbook() -> None:
    at = np.linspace(0.0, 1.0, 21)
    for seen, expected in zip(posterior(TRIED, FOUND, at), by_hand(TRIED, FOUND, at), strict=True):
        np.testing.assert_allclose(seen, expected, atol=2e-3)


@pytest.mark.parametrize("kappa", [0.0, 1.0, 1000.0])
def test_the_next_place_has_the_least_bound_of_those_not_tried(kappa) -> None:
    mean, deviation = by_hand(TRIED, FOUND, PLACES)
    bound = {float(place): value for place, value in zip(PLACES, mean - kappa * deviation, strict=True)}
    chosen = next_place(TRIED, FOUND, kappa)
    assert chosen not in TRIED
    least = min(value for place, value in bound.items() if place not in TRIED)
    assert bound[chosen] <= least + (1.0 + kappa) * 4e-3


def test_the_unknown_attracts_evenly() -> None:
    tried: list[float] = []
    for _ in range(10):
        tried.append(next_place(tried, [1.0] * len(tried), kappa=1000.0))
    assert np.diff([0.0, *sorted(tried), 1.0]).max() < 0.25


def test_what_was_given_up_is_as_bad_as_the_worst_and_never_best() -> None:
    lost = [*FOUND[:4], float("inf")]
    assert next_place(TRIED, lost, 10.0) == next_place(TRIED, [*FOUND[:4], 2.3], 10.0)
    assert best_place(TRIED, lost) == 0.72
    assert best_place([0.5, 0.25], [float("inf")] * 2) == 0.25
    assert next_place([0.5], [float("inf")], 1.0) in PLACES


def test_the_best_has_the_least_mean_and_not_the_luckiest_value() -> None:
    places = [float(place) for place in np.linspace(0.0, 1.0, 12)]
    noise = np.random.default_rng(1).standard_normal(12)
    values = [float(2.0 * (place - 0.7) ** 2 + 0.15 * one) for place, one in zip(places, noise, strict=True)]
    mean, _ = by_hand(places, values, places)
    assert best_place(places, values) == places[int(mean.argmin())]
    assert int(mean.argmin()) != int(np.argmin(values))
