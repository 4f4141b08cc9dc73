"""Bins: the search of torch at every edge and beside it."""

from __future__ import annotations

import pytest
import torch

from tikhon.math.bins import binned_means


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [1, 2, 3, 10, 15, 49, 100])
def test_every_score_is_in_the_bin_that_a_search_finds(bins: int, dtype: torch.dtype) -> None:
    edges = (torch.arange(1, bins, dtype=torch.float64) / bins).to(dtype)
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    beside = [torch.nextafter(edges, end) for end in ends]
    for score in torch.cat([edges, *beside, ends, torch.linspace(0, 1, 77, dtype=dtype)]):
        count = binned_means(score.reshape(1, 1), torch.ones(1, 1, dtype=dtype), bins)[2]
        assert int(count.argmax()) == int(torch.bucketize(score, edges))
        assert int(count.sum()) == 1
