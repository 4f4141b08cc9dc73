"""Exponentials with a floor: how a loss falls at a constant rate, as far as a few steps show."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.outliers import without_outliers

_POINTS = 65
_ROUNDS = 8


class Exponential(NamedTuple):
    """floor + scale * exp(-rate * t), each a scalar tensor."""

    floor: Tensor
    scale: Tensor
    rate: Tensor

    def at(self, t: Tensor) -> Tensor:
        """The value at t of any shape."""
        return self.floor + self.scale * torch.exp(-self.rate * t)


def fitted_exponential(
    t: Tensor,
    values: Tensor,
    floor: float = 0.0,
    rising: bool = True,
    rates: tuple[float, float] | None = None,
) -> Exponential:
    """The exponential of least squares that falls, or rises, towards its floor, which is bounded from below.

    t: (n,), finite and not all alike, n at least 3; values: (n,), finite; floor: the least value of the fitted floor,
    -inf for no bound; rising: whether the scale may be negative; rates: the slowest and the fastest rate, positive, by
    default 0.1 / (largest t - smallest), beyond which an exponential cannot be told from a line, and 10 / (mean
    distance of t). For a given rate, floor and scale are a linear problem, so a search over the rate alone finds the
    fit, without a first guess. Computed in float64, returned in the type of the values. Raises `TikhonError` where
    there is nothing to fit.

    >>> t = torch.arange(20.0)
    >>> curve = fitted_exponential(t, 0.5 + 2.0 * torch.exp(-0.25 * t))
    >>> [round(float(one), 4) for one in curve]
    [0.5, 2.0, 0.25]
    """
    if t.ndim != 1 or t.shape != values.shape or len(t) < 3:
        raise TikhonError(
            f"An exponential needs at least three t and as many values, not {tuple(t.shape)} and {tuple(values.shape)}."
        )
    if not bool(t.isfinite().all() & values.isfinite().all()) or not bool((t != t[0]).any()):
        raise TikhonError("An exponential needs finite t that are not all alike, and finite values.")
    y, time = values.double(), t.double()
    start, span = time.min(), time.max() - time.min()
    age = time - start  # from the start on, powers stay in [0, 1]
    slowest, fastest = (0.1 / span, 10.0 * (len(t) - 1) / span) if rates is None else y.new_tensor(rates)
    low, high = slowest.log(), fastest.log()
    for _ in range(_ROUNDS):
        grid = low + (high - low) * torch.linspace(0.0, 1.0, _POINTS, dtype=y.dtype, device=y.device)
        floors, scales, errors = _linear_part(torch.exp(-grid.exp()[:, None] * age), y, floor, rising)
        best = errors.argmin()
        low, high = grid[(best - 1).clamp_min(0)], grid[(best + 1).clamp_max(_POINTS - 1)]
    rate = grid[best].exp()
    found = Exponential(floors[best], scales[best] * (rate * start).exp(), rate)
    return Exponential(*(one.to(values.dtype) for one in found))


def _linear_part(powers: Tensor, y: Tensor, least: float, rising: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Floor >= least and scale of least squares for each row of powers, (e, n), and the squared errors, (e,) each."""
    centred = powers - powers.mean(1, keepdim=True)
    scale = centred @ y / centred.square().sum(1)
    scale = scale if rising else scale.clamp_min(0.0)
    floor = y.mean() - scale * powers.mean(1)
    if least > -torch.inf:
        alone = powers @ (y - least) / powers.square().sum(1)  # the best scale where the floor would be too low
        scale = torch.where(floor < least, alone if rising else alone.clamp_min(0.0), scale)
        floor = floor.clamp_min(least)
    return floor, scale, (floor[:, None] + scale[:, None] * powers - y).square().sum(1)


def forecast(t: Tensor, losses: Tensor, at: float, count: int, rounds: int, floor: float = 0.0) -> Tensor:
    """The loss at a later time by an exponential through a series of losses but its outliers; a scalar.

    An exponential that has not fallen by a factor of e within the series, as of losses that fall in a line or ever
    faster, leaves its floor to the noise: then what it has reached by the end of the series is all that is expected.

    t, losses: (n,), n at least 3, t rising; at: the later time; count, rounds: of `without_outliers`; floor: of
    `fitted_exponential`. Source: Jin et al. 2021, arXiv 2105.10762. The official code fits to the values of its spline,
    and without a bound; where no exponential is better than a line, its numbers degenerate to the mean of the series.

    >>> t = torch.arange(10.0)
    >>> forecast(t, 1.0 + torch.exp(-0.5 * t), at=100.0, count=0, rounds=0)
    tensor(1.)
    >>> forecast(t, 2.0 - 0.1 * t, at=100.0, count=0, rounds=0) > 1.0
    tensor(True)
    """
    kept = without_outliers(t, losses, count, rounds)
    curve, first, last = fitted_exponential(t[kept], losses[kept], floor), t[kept[0]], t[kept[-1]]
    later = torch.as_tensor(at, dtype=losses.dtype, device=losses.device)
    return curve.at(torch.where(curve.rate * (last - first) < 1.0, last.to(losses.dtype), later))
