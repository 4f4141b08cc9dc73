"""Nearest neighbours: those of a search over all pairs, whatever the size of the chunks."""

from __future__ import annotations

import pytest
import torch

from tikhon.math import neighbours

QUERIES = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e3
POINTS = torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1e3


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_the_nearest_is_that_of_all_pairs(at_once, monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", at_once)
    distances = (QUERIES[:, None] - POINTS).norm(dim=2)
    assert torch.equal(neighbours.nearest(QUERIES, POINTS), distances.argmin(1))
    for k in (1, 4):
        expected = distances.kthvalue(k, 1).values.square()
        torch.testing.assert_close(neighbours.kth_squared_distance(QUERIES, POINTS, k), expected)
