"""Shares of a budget: who gets how much of k places when everybody's share is capped at one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Sorted = tuple[Tensor, Tensor]
"""Values from the smallest up, (..., n), and where each was."""


def capped_shares(sizes: Tensor, strength: Tensor, k: Tensor, costs: Tensor) -> Tensor:
    """u_j = clip(a_j / t - strength d_j, 0, 1) with t such that sum_j d_j u_j = k; 1 where k has room for all a_j > 0.

    sizes a >= 0, costs d > 0: (..., n); strength >= 0, k > 0: (..., 1). Returns u, (..., n), 0 where a is. As t falls,
    candidate j grows from t = a_j / (strength d_j) and is full from a_j / (1 + strength d_j) on; before and after, u is
    exactly 0 and 1, never almost. O(n log n), exact up to rounding, differentiable.

    >>> one = torch.ones(1)
    >>> capped_shares(torch.tensor([4.0, 2.0, 1.0]), 0 * one, 2 * one, torch.ones(3))
    tensor([1.0000, 0.6667, 0.3333])
    """
    none = sizes == 0
    d = costs.masked_fill(none, 0.0)
    delay = strength * d
    at_once = delay == 0
    begin = (sizes / delay.masked_fill(at_once, 1.0)).masked_fill(at_once, torch.inf)
    full = sizes / (1 + delay)
    total = d.sum(dim=-1, keepdim=True)

    with torch.no_grad():  # between which two ends is the sum's graph, a hyperbola from one to the next, equal to k?
        begins, by_begin = begin.sort(dim=-1)
        fulls, by_full = full.sort(dim=-1)
        ends = torch.cat([begins, fulls], dim=-1)
        parts = torch.stack([d, d * sizes, d * delay])
        low = _last_reached((begins, by_begin), (fulls, by_full), ends, parts, total, k)
        high = ends.masked_fill(ends <= low, torch.inf).amin(dim=-1, keepdim=True)
        still = (full > low) | (begin < high)
    missing = k - d.masked_fill(full < high, 0.0).sum(dim=-1, keepdim=True)
    growing = d.masked_fill(still, 0.0)
    wanted = missing + (growing * delay).sum(dim=-1, keepdim=True)
    t = (growing * sizes).sum(dim=-1, keepdim=True) / wanted.masked_fill(wanted <= 0, 1.0)
    t = torch.minimum(torch.maximum(t, low), high)
    between = (sizes / t.masked_fill(t == 0, 1.0) - delay).clamp(0, 1)
    u = between.masked_fill(begin <= t, 0.0).masked_fill((full >= t) | (total <= k), 1.0)
    return u.masked_fill(none, 0.0)


def _last_reached(begin: Sorted, full: Sorted, ends: Tensor, parts: Tensor, total: Tensor, k: Tensor) -> Tensor:
    """The largest end t at which sum_j d_j u_j has reached k, (..., 1).

    ends: both one after the other, each sorted, so that looking them up walks through memory and does not jump about;
    parts: d, d a and strength d^2, (3, ..., n). Sums over growing candidates are differences of sums from the smallest
    end upwards, whose members have small a: nothing large cancels.
    """
    (begins, by_begin), (fulls, by_full) = begin, full
    waiting = _sums(parts, by_begin).gather(-1, _each(torch.searchsorted(begins, ends, right=True)))
    unfilled = _sums(parts, by_full).gather(-1, _each(torch.searchsorted(fulls, ends)))
    _, rising, offset = unfilled - waiting
    reached = total - unfilled[0] + rising / ends.clamp_min(torch.finfo(ends.dtype).tiny) - offset
    slack = 4 * torch.finfo(ends.dtype).eps * (parts[0] + parts[2]).sum(dim=-1, keepdim=True)
    return ends.masked_fill(reached < k - slack, 0.0).amax(dim=-1, keepdim=True)


def _sums(parts: Tensor, order: Tensor) -> Tensor:
    """(3, ..., n + 1): the sums of the first 0..n in this order."""
    return nn.functional.pad(parts.gather(-1, _each(order)).cumsum(dim=-1), (1, 0))


def _each(index: Tensor) -> Tensor:
    return index.expand(3, *index.shape)
