"""A Gaussian process on the unit interval, and where to look next for the least value: Bayesian optimisation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

Array = NDArray[np.float64]
Numbers = Sequence[float] | Array

PLACES = np.linspace(0.0, 1.0, 1001)
"""Where to look."""


def posterior(
    places: Sequence[float], values: Sequence[float] | Array, at: Sequence[float] | Array
) -> tuple[Array, Array]:
    """Mean and standard deviation, at places (m,), of a Gaussian process through noisy values at places, (n,) each.

    Of values in units of their own mean and deviation; the kernel is a constant times a Matern kernel of smoothness
    5/2, plus noise, with the parameters of greatest marginal likelihood. n: at least 1. No longer length than the unit
    interval's is allowed, so that of few values, too, some places are less known than others. Nothing is drawn.

    >>> mean, deviation = posterior([0.0, 0.5, 1.0], [1.0, 0.0, 1.0], at=[0.5])
    >>> bool(abs(mean[0]) < 0.1), bool(deviation[0] < 0.1)
    (True, True)
    """
    kernel = ConstantKernel(1.0, (0.1, 10.0)) * Matern(0.3, (0.05, 1.0), nu=2.5) + WhiteKernel(0.01, (1e-6, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # with few points a parameter may well lie on its bound
        process.fit(np.reshape(places, (-1, 1)), np.asarray(values, dtype=np.float64))
    mean, deviation = process.predict(np.reshape(at, (-1, 1)), return_std=True)
    return mean, deviation


def next_place(places: Sequence[float], values: Sequence[float], kappa: float) -> float:
    """The new one of PLACES with the least lower confidence bound, mean - kappa * deviation; 0.5 where none was tried.

    places, values: (n,) each, what was tried and what came of it, inf where nothing did, which counts as the largest of
    the others; kappa: how much the unknown attracts, at least 0.

    >>> next_place([0.0, 1.0], [1.0, 1.0], kappa=1000.0)
    0.5
    """
    if not places:
        return 0.5
    mean, deviation = posterior(places, _finite(values), PLACES)
    bound: Array = mean - kappa * deviation
    bound[np.isin(PLACES, places)] = np.inf
    return float(PLACES[bound.argmin()])


def best_place(places: Sequence[float], values: Sequence[float]) -> float:
    """Of the places that were tried the one with the least posterior mean; the lowest where all values are inf.

    >>> best_place([0.5, 0.0, 1.0], [2.0, 1.0, float("inf")])
    0.0
    """
    if not np.isfinite(values).any():
        return min(places)
    mean = np.where(np.isfinite(values), posterior(places, _finite(values), places)[0], np.inf)
    return places[int(mean.argmin())]


def _finite(values: Sequence[float]) -> Array:
    found = np.asarray(values, dtype=np.float64)
    known = np.isfinite(found)
    return np.where(known, found, found[known].max() if known.any() else 0.0)
