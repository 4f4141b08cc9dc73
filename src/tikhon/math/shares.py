"""Shares of a budget: who gets how much of k places when everybody's share is capped at one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def capped_shares(sizes: Tensor, strength: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """u_j = clip(c a_j - strength d_j, 0, 1) with c such that sum_j d_j u_j = k; 1 where k has room for all a_j > 0.

    sizes a >= 0, costs d > 0: (..., n); strength >= 0, k > 0: (..., 1). Returns u, (..., n), 0 where a is. Candidate j
    grows from c = strength d_j / a_j and is full from (1 + strength d_j) / a_j on; before and after, u is exactly 0
    and 1, never almost. O(n log n), exact up to rounding, differentiable.

    >>> one = torch.ones(1)
    >>> capped_shares(torch.tensor([4.0, 2.0, 1.0]), 0 * one, 2 * one, torch.ones(3))
    tensor([1.0000, 0.6667, 0.3333])
    """
    largest = sizes.amax(dim=-1, keepdim=True)
    a = sizes / largest.where(largest > 0, 1.0)  # u depends on ratios only; this keeps 1 / a far from overflow
    nonzero = a > 0
    d = d.where(nonzero, 0.0)
    never = torch.finfo(a.dtype).max
    begin = (strength * d / a.where(nonzero, 1.0)).where(nonzero, never)
    full = ((1 + strength * d) / a.where(nonzero, 1.0)).where(nonzero, never)
    total = d.sum(dim=-1, keepdim=True)

    with torch.no_grad():  # in which piece of the sum's graph the solution lies
        ends = torch.cat([begin, full], dim=-1)
        filled, rising, offset = _pieces(begin, full, ends, d, d * a)
        slack = 4 * torch.finfo(a.dtype).eps * (d * (1 + strength * d)).sum(dim=-1, keepdim=True)
        reached = filled + ends * rising - strength * offset >= k - slack
        above = ends.where(reached, never).amin(dim=-1, keepdim=True)
        below = ends.where(ends < above, 0.0).amax(dim=-1, keepdim=True)
        grown, growing = full <= below, (begin <= below) & (full >= above)
    slope = (d * a).where(growing, 0.0).sum(dim=-1, keepdim=True)
    missing = k - d.where(grown, 0.0).sum(dim=-1, keepdim=True)
    c = (missing + strength * (d * d).where(growing, 0.0).sum(dim=-1, keepdim=True)) / slope.where(slope > 0, 1.0)
    c = torch.minimum(torch.maximum(c, below), above)
    between = (c * a - strength * d).clamp(0, 1)
    u = torch.where(c >= full, 1.0, torch.where(c <= begin, 0.0, between))
    return torch.where(total <= k, 1.0, u).where(nonzero, 0.0)


def _pieces(begin: Tensor, full: Tensor, at: Tensor, d: Tensor, da: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At each place: the cost of full candidates, and the sums of d a and of d^2 over growing ones, (..., 2n) each.

    Sums over growing candidates are differences of sums from the far end, where a is small: nothing large cancels.
    """
    starts, by_start = begin.sort(dim=-1)
    stops, by_stop = full.sort(dim=-1)
    started = torch.searchsorted(starts, at, right=True)
    stopped = torch.searchsorted(stops, at, right=True)

    def difference(values: Tensor) -> Tensor:
        unfilled = _from_end(values.gather(-1, by_stop)).gather(-1, stopped)
        return unfilled - _from_end(values.gather(-1, by_start)).gather(-1, started)

    filled = nn.functional.pad(d.gather(-1, by_stop).cumsum(dim=-1), (1, 0)).gather(-1, stopped)
    return filled, difference(da), difference(d * d)


def _from_end(values: Tensor) -> Tensor:
    """(..., n + 1): the sum of values[i:] for i = 0..n."""
    return nn.functional.pad(values.flip(-1).cumsum(dim=-1), (1, 0)).flip(-1)
