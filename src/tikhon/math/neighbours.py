"""Nearest neighbours by brute force: exact, and small where they are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**24
"""How many distances are held in memory at a time: 64 MB in float32."""


def kth_squared_distance(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """||q - p||^2 to the k-th nearest point, of every query.

    queries: (N, D); points: (M, D); k: in [1, M], 1 for the nearest. A query that is itself one of the points counts as
    its own first neighbour, at distance 0. Returns (N,), at least 0.

    >>> kth_squared_distance(torch.tensor([[0.0]]), torch.tensor([[0.0], [1.0], [3.0]]), k=2)
    tensor([1.])
    """
    return _of_squared_distances(queries, points, lambda found: found.kthvalue(k, dim=1).values).clamp_min(0.0)


def nearest(queries: Tensor, points: Tensor) -> Tensor:
    """The place of the nearest point, of every query; of several as near any one, up to rounding.

    queries: (N, D); points: (M, D). Returns (N,) int64.

    >>> nearest(torch.tensor([[0.9], [2.9]]), torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([1, 2])
    """
    return _of_squared_distances(queries, points, lambda found: found.argmin(dim=1))


def loneliest(queries: Tensor, points: Tensor, k: int, count: int) -> Tensor:
    """The places of the `count` queries that are farthest from their k-th nearest point, the farthest first.

    queries: (N, D), N at least `count`; points: (M, D); k: in [1, M]. Returns (count,).

    >>> loneliest(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.0], [1.0], [9.0]]), k=2, count=1)
    tensor([2])
    """
    return kth_squared_distance(queries, points, k).topk(count).indices


def _of_squared_distances(queries: Tensor, points: Tensor, reduced: Callable[[Tensor], Tensor]) -> Tensor:
    """What is left of the rows of ||q - p||^2, (N, M), which are held a few at a time; rounded, even below 0."""
    centre = points.mean(0)  # far from the origin the difference of large squares loses digits
    queries, points = queries - centre, points - centre
    lengths = points.square().sum(1)
    found = [
        reduced(rows.square().sum(1)[:, None] + lengths - 2.0 * rows @ points.T)
        for rows in queries.split(max(1, PAIRS_AT_ONCE // len(points)))
    ]
    return torch.cat(found)
