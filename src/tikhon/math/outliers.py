"""Outliers of a series: what lies farthest from a spline through the rest."""

from __future__ import annotations

import torch
from torch import Tensor

KNOTS = (0.125, 0.25, 0.5)
"""Of the spline, as shares of the series: closer together at its start, where losses bend."""


def quadratic_spline(t: Tensor, values: Tensor) -> Tensor:
    """The quadratic spline of least squares with knots at an eighth, a quarter and half of the span of t, at t.

    t, values: (n,), t rising. Returns (n,). What it reproduces exactly: parabolas, also those that change at a knot.

    >>> quadratic_spline(torch.arange(9.0), (3.0 - torch.arange(9.0)) ** 2)[4:]
    tensor([ 1.,  4.,  9., 16., 25.])
    """
    place = ((t - t[0]) / (t[-1] - t[0])).double()
    columns = [torch.ones_like(place), place, place.square(), *((place - knot).relu().square() for knot in KNOTS)]
    basis: Tensor = torch.linalg.qr(torch.stack(columns, dim=1)).Q
    return (basis @ (basis.T @ values.double())).to(values.dtype)


def without_outliers(t: Tensor, values: Tensor, count: int, rounds: int = 1, until: float = 0.5) -> Tensor:
    """Which points of a series to keep: in every round those farthest from a spline through the rest are left out.

    t, values: (n,), t rising; count: how many points of a round are looked at; rounds: how often; until: points beyond
    this share of the series are always kept, since its end says most about what follows. Ends before fewer than twelve
    points are left. Returns the places of the kept points, rising, (m,). Source: official code of Jin et al. 2021
    (AutoLRS, arXiv 2105.10762), whose spline has no knots for losses below about 1, and knots that depend on the
    losses' unit above.

    >>> series = torch.arange(14.0)
    >>> series[5] = 40.0
    >>> without_outliers(torch.arange(14.0), series, count=1)
    tensor([ 0,  1,  2,  3,  4,  6,  7,  8,  9, 10, 11, 12, 13])
    """
    kept = torch.arange(len(t), device=t.device)
    bound = t[int((len(t) - 1) * until)]
    for _ in range(rounds):
        if len(kept) - count < 12:
            break
        distance = (values[kept] - quadratic_spline(t[kept], values[kept])).abs()
        farthest = distance.topk(count).indices
        stays = torch.ones_like(kept, dtype=torch.bool)
        stays[farthest] = t[kept[farthest]] >= bound
        kept = kept[stays]
    return kept
