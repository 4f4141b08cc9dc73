"""Intervals: of a mean, of a difference of means, of a share and of a difference of shares."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32

Estimate = tuple[float, float | None, float | None]
"""A value and the two ends of its interval, None where there is none."""


def mean_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean and Student's t confidence interval of independent values.

    values: (n,), finite, one number a seed. level: the interval's coverage, in (0, 1).
    Returns (mean, low, high) with low, high = mean -/+ t_{n-1, (1+level)/2} s / sqrt(n), where s is the sample standard
    deviation; one value has no interval: (mean, None, None). Exact for normal values.

    >>> mean_interval([0.5])
    (0.5, None, None)
    """
    sample = _sample(values, "values")
    _check_level(level)
    mean = float(sample.mean())
    if len(sample) == 1:
        return mean, None, None
    half = float(stdtrit(len(sample) - 1, (1 + level) / 2)) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return mean, mean - half, mean + half


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of a - b with its t interval, where a[i] and b[i] share seed i (split, corruption, weights, order).

    a, b: (n,), finite. The variation that both share cancels, so this interval is narrower than that of two
    independent means. Returns (mean, low, high); low and high are None for one pair.
    """
    first, second = _sample(a, "a"), _sample(b, "b")
    if len(first) != len(second):
        raise TikhonError(f"a has {len(first)} values and b has {len(second)}; pairs need one of each for every seed.")
    return mean_interval(first - second, level)


def welch_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of a minus mean of b with Welch's t interval, of independent samples whose variances may differ.

    a: (n,), b: (m,), finite. Returns (difference, low, high); low and high are None where a sample has one value.
    Source: Welch 1947, with the degrees of freedom of Satterthwaite 1946.

    >>> welch_difference([1.0, 1.0], [0.5, 0.5])
    (0.5, 0.5, 0.5)
    """
    first, second = _sample(a, "a"), _sample(b, "b")
    _check_level(level)
    difference = float(first.mean() - second.mean())
    if min(len(first), len(second)) == 1:
        return difference, None, None
    one, other = (float(sample.var(ddof=1)) / len(sample) for sample in (first, second))
    if one + other == 0:
        return difference, difference, difference
    freedom = (one + other) ** 2 / (one**2 / (len(first) - 1) + other**2 / (len(second) - 1))
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(one + other)
    return difference, difference - half, difference + half


def wilson_interval(successes: Tensor, trials: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Wilson's score interval of a share, for each of several: it stays in [0, 1] and holds for few trials too.

        (x + z^2/2 -/+ z sqrt(x (n - x) / n + z^2/4)) / (n + z^2),   z = Phi^-1((1 + level) / 2)

    successes: x, in [0, n]; trials: n, at least 0, of the same shape; level: the coverage, in (0, 1). Returns low and
    high, 0 and 1 where there were no trials. Source: Wilson 1927.

    >>> wilson_interval(torch.tensor([8.0, 0.0]), torch.tensor([10.0, 0.0]))
    (tensor([0.4902, 0.0000]), tensor([0.9433, 1.0000]))
    """
    _check_level(level)
    x, n = at_least_float32(successes), at_least_float32(trials)
    z = torch.special.ndtri(x.new_full((), (1 + level) / 2))
    spread = x * (n - x) / torch.where(n > 0, n, torch.ones_like(n))
    half = z * (spread + z**2 / 4).sqrt()
    centre = x + z**2 / 2
    return ((centre - half) / (n + z**2)).clamp_min(0.0), ((centre + half) / (n + z**2)).clamp_max(1.0)


def share_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float, float]:
    """One share x / n and the ends of its Wilson interval, as plain numbers; trials: n, at least 1.

    >>> print("{:.2f} [{:.2f}, {:.2f}]".format(*share_interval(8, 10)))
    0.80 [0.49, 0.94]
    """
    x, n = torch.tensor([successes, trials], dtype=torch.float64)
    low, high = wilson_interval(x, n, level)
    return successes / trials, float(low), float(high)


def newcombe_interval(
    successes: Tensor, trials: Tensor, other_successes: Tensor, other_trials: Tensor, level: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Interval of x/n - y/m, the difference of two independent shares, made of their Wilson intervals.

        low = p - q - sqrt((p - l_p)^2 + (u_q - q)^2),   high = p - q + sqrt((u_p - p)^2 + (q - l_q)^2)

    successes, trials: x and n; other_successes, other_trials: y and m likewise; all of one shape. Returns
    low and high, in [-1, 1], both ends where there were no trials.
    Source: Newcombe 1998, Statistics in Medicine 17, 873-890, method 10.

    >>> newcombe_interval(*torch.tensor([56.0, 70.0, 48.0, 80.0]))
    (tensor(0.0524), tensor(0.3339))
    """
    x, n, y, m = (at_least_float32(one) for one in (successes, trials, other_successes, other_trials))
    none = (n <= 0) | (m <= 0)
    p, q = x / n.clamp_min(1.0), y / m.clamp_min(1.0)
    (p_low, p_high), (q_low, q_high) = wilson_interval(x, n, level), wilson_interval(y, m, level)
    low = p - q - torch.hypot(p - p_low, q_high - q)
    high = p - q + torch.hypot(p_high - p, q - q_low)
    return low.masked_fill(none, -1.0), high.masked_fill(none, 1.0)


def _sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise TikhonError(f"{name} has the shape {sample.shape}; statistics need one row of at least one number.")
    if not np.isfinite(sample).all():
        raise TikhonError(f"{name} holds NaN or infinity; leave out or repeat the runs that diverged.")
    return sample


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise TikhonError(f"level is {level}; the coverage of an interval lies between 0 and 1, for example 0.95.")
