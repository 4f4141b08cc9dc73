"""Sums over all pairs of the distances of paired scalars, without the pairs: time n log n."""

from __future__ import annotations

from math import ceil, log2

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64
"""So many neighbours, at most, are compared pair by pair: below, calls take longer than what they compute."""


def scalar_sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sum_ij a_ij b_ij, sum_i a_i b_i and sum_i a_i sum_i b_i, where a_ij = |x_i - x_j|, a_i = sum_j a_ij; b of y.

    x, y: (n,). Scalars in float64, differentiable; the gradient at equal values is 0. Every distance is a difference
    whose sign follows from the orders of x and of y (Huo, Szekely 2016, arXiv 1410.1503). Blocks of neighbours in x are
    compared pair by pair, and merged two by two in the order of y: what a cut there separates needs cumulated sums
    alone.
    """
    levels = max(0, ceil(log2(len(x) / BLOCK)))
    side = -(-len(x) // 2**levels)
    absent = side * 2**levels - len(x)
    # Samples at (0, 0) fill up the last block; what they add is known.
    x, y = (F.pad(one - one.detach().mean(), (0, absent)) for one in (x.double(), y.double()))
    orders = [(x, y)]
    if x.requires_grad or y.requires_grad:
        orders.append((x.flip(0), y.flip(0)))  # equal values the other way round: what they add to gradients cancels
    found = [_ordered_sums(*one, side, levels, absent) for one in orders]
    product, across, total = (sum(one[1:], one[0]) / len(found) for one in zip(*found, strict=True))
    return product, across, total


def _ordered_sums(x: Tensor, y: Tensor, side: int, levels: int, absent: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three sums without the last or first `absent` samples, which are zeros; equal values by their places."""
    values, place = y.sort(stable=True)
    rank = torch.empty_like(place).scatter(0, place, torch.arange(len(place), device=x.device))
    x, order = x.sort(stable=True)
    y, rank = y.index_select(0, order), rank.index_select(0, order)
    far_x, far_y = x.abs(), y.abs()
    rows, columns = _row_sums(x) - absent * far_x, _row_sums(values).index_select(0, rank) - absent * far_y
    all_x, all_y = far_x.sum(), far_y.sum()
    across = rows @ columns - absent * all_x * all_y
    product = _within_blocks(x, y, rank, side) - 2.0 * absent * (far_x @ far_y)
    for level in range(levels):
        size = side * 2 ** (level + 1)
        rank, at = rank.view(-1, size).sort(1)
        x, y = x.view(-1, size).gather(1, at), y.view(-1, size).gather(1, at)
        product = product + 2.0 * _between_halves(x, y, at >= size // 2)
    return product, across, (rows.sum() - absent * all_x) * (columns.sum() - absent * all_y)


def _row_sums(values: Tensor) -> Tensor:
    """sum_j |v_i - v_j| of rising values, (n,)."""
    sums = values.cumsum(0)
    weights = torch.arange(2 - len(values), len(values) + 1, 2, dtype=values.dtype, device=values.device)
    return torch.sub(weights * values, sums, alpha=2.0) + sums[-1]


def _within_blocks(x: Tensor, y: Tensor, rank: Tensor, side: int) -> Tensor:
    """sum_ij a_ij b_ij of the pairs in each block of `side` neighbours; x rises, rank is that of y."""
    x, y, rank = x.view(-1, side), y.view(-1, side), rank.view(-1, side)
    products = (x[:, :, None] - x[:, None]) * (y[:, :, None] - y[:, None])
    later = torch.ones(side, side, dtype=torch.bool, device=x.device).tril(-1)
    alike = (rank[:, :, None] > rank[:, None]) == later
    # 1 or -1 by arithmetic, which is several times as fast as a choice
    return torch.dot(products.flatten(), alike.to(x.dtype).mul_(2.0).sub_(1.0).flatten())


def _between_halves(x: Tensor, y: Tensor, right: Tensor) -> Tensor:
    """sum (x_j - x_i) |y_j - y_i| over i of the left half and j of the right one of each row, in which y rises.

    x, y: (rows, size); right: which are of the right half. y_j - y_i is the sum of the steps of y between the two, and
    the pairs that a step separates are told by how many of the right are below it, H, and by the sums of x, X and R.
    """
    half = x.shape[1] // 2
    below = torch.arange(1, 2 * half + 1, dtype=x.dtype, device=x.device)
    above = torch.arange(2 * half - 2, -2 * half - 1, -2, dtype=x.dtype, device=x.device)  # less those below
    h, all_x, right_x = right.cumsum(1, dtype=x.dtype), x.cumsum(1), (x * right).cumsum(1)
    separated = torch.addcmul(below * right_x[:, -1:], above, right_x)
    separated = torch.addcmul(separated, h, torch.add(-all_x[:, -1:], all_x, alpha=2.0))
    separated = torch.sub(separated, all_x, alpha=half)
    return (separated[:, :-1] * y.diff(dim=1)).sum()
