"""Bins: the mean of some values among all that share a bin of others."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.math.precision import at_least_float32


def binned_means(scores: Tensor, values: Tensor, bins: int, equal_mass: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Means of scores and of values in every bin of scores, row by row.

    scores: (R, n), n at least 1, in [0, 1] unless equal_mass; values: (R, n); bins: M, at least 1; equal_mass: bins
    hold as many scores each, otherwise bin m holds those in ((m - 1) / M, m / M], and 0 belongs to the first. Equal
    scores always share a bin, so that the order of samples does not matter. Returns the means of scores and of values,
    (R, M), NaN where a bin is empty, and the counts (R, M) int64.

    >>> binned_means(torch.tensor([[0.1, 0.3, 0.9]]), torch.tensor([[0.0, 1.0, 1.0]]), bins=2)
    (tensor([[0.2000, 0.9000]]), tensor([[0.5000, 1.0000]]), tensor([[2, 1]]))
    """
    scores, values = at_least_float32(scores), at_least_float32(values)
    if equal_mass:
        queries = scores.detach().contiguous()  # searchsorted warns of gaps in memory
        ordered = queries.sort(1).values
        ranks = torch.searchsorted(ordered, queries) + torch.searchsorted(ordered, queries, right=True)
        member = ranks * bins // (2 * scores.shape[1])  # twice the middle of the ranks that equal scores share
    else:
        member = _bin_of(scores.detach(), bins)
    empty = scores.new_zeros(len(scores), bins)
    count = empty.long().scatter_add(1, member, member.new_ones(()).expand_as(member))
    return empty.scatter_add(1, member, scores) / count, empty.scatter_add(1, member, values) / count, count


def _bin_of(scores: Tensor, bins: int) -> Tensor:
    """What `torch.bucketize` finds for edges m / M, from 0, without its search: the product is off by one at most."""
    edges = (torch.arange(bins + 1, dtype=torch.float64, device=scores.device) / bins).to(scores.dtype)
    edges[0], edges[-1] = -torch.inf, torch.inf
    guess = (scores * bins).long().clamp_(0, bins - 1)
    above, below = scores > edges[1:][guess], scores <= edges[guess]
    return guess.add_(above).sub_(below.byte())
