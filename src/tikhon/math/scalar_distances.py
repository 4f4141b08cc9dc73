"""Distance covariance of scalars without their pairs: time n log n, memory n."""

from __future__ import annotations

from math import ceil, log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 64
"""So many neighbours, at most, are compared pair by pair: below, calls take longer than what they compute."""
PARTS = 16
"""Into so many parts, at most, a block is divided at a time: each costs a pass over the block, each level a sort."""


def scalar_covariance(x: Tensor, y: Tensor, unbiased: bool) -> Tensor:
    """As `dependence.distance_covariance`; x, y: (n,), float64. Differentiable once; 0 where values are equal."""
    if not (x.requires_grad or y.requires_grad):  # what a graph takes is a fifth of the time for a thousand
        return _Covariance.forward(x, y, unbiased)
    value: Tensor = _Covariance.apply(x, y, unbiased)  # type: ignore[no-untyped-call]
    return value


class _Covariance(torch.autograd.Function):
    """In x alone it is linear, as long as its order stays, so that the value follows from the gradient."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, unbiased: bool) -> Tensor:
        x = x - x.mean()  # against rounding
        rising, order = x.sort()
        return torch.dot(rising, _slopes(order, y, unbiased)) * _scale(len(x), unbiased)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        x, y, ctx.unbiased = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        pairs = ((x, y), (y, x))
        found = (
            gradient * _gradient(*pair, ctx.unbiased) if needed else None
            for pair, needed in zip(pairs, ctx.needs_input_grad, strict=False)
        )
        return *found, None


def _gradient(x: Tensor, y: Tensor, unbiased: bool) -> Tensor:
    """In x, (n,). Equal values once in the order of their places and once the other way round: they cancel."""
    total = torch.zeros_like(x)
    for order in (x.sort(stable=True).indices, len(x) - 1 - x.flip(0).sort(stable=True).indices):
        total.scatter_add_(0, order, _slopes(order, y, unbiased))
    return total * (0.5 * _scale(len(x), unbiased))


def _scale(n: int, unbiased: bool) -> float:
    """Of slopes."""
    return 4.0 / (n * (n - 3 if unbiased else n))


def _slopes(order: Tensor, y: Tensor, unbiased: bool) -> Tensor:
    """The gradient in x over `_scale`, (n,), in the order in which x rises.

    That of sum_ij a_ij b_ij in x is 4 L_i - 2 b_i, L_i the sum of the b_ij with all j before i, b_i that with all j:
    signs of x follow from its order alone (Huo, Szekely 2016, arXiv 1410.1503). L_i needs but counts and sums of y:
    those before i are told apart by blocks that are divided again and again, which are compared in the order of y, and
    neighbours in the last blocks pair by pair.
    """
    n = len(y)
    levels = max(0, ceil(log(n / BLOCK, PARTS)))
    parts = ceil((n / BLOCK) ** (1.0 / max(1, levels)))
    side = -(-n // parts**levels)
    absent = side * parts**levels - n  # they come last, and nobody asks for theirs
    y = y - y.mean()
    values, places = y.sort()
    number = torch.arange(n + absent, device=y.device)
    rank = torch.empty_like(number).scatter_(0, order, number[:n])
    rank = torch.cat((rank.index_select(0, places), number[n:]))

    half = torch.arange(-0.5 * n, 0.5 * n, dtype=y.dtype, device=y.device)
    minus_half = (values.cumsum(0) - values).addcmul_(half, values, value=-1.0)  # of b_i, in the order of y
    minus_half = torch.empty_like(y).scatter_(0, rank[:n], minus_half)
    before = _within_blocks(F.pad(y.index_select(0, order), (0, absent)).view(-1, side)).flatten()
    _add_between_blocks(before, F.pad(values, (0, absent)), rank, parts, levels)

    one, two = (n - 1, n - 2) if unbiased else (n, n)
    total = minus_half.sum()
    centred = torch.sub(minus_half, total, alpha=0.5 / one)
    across = centred.cumsum(0).addcmul_(half, centred).sub_(total, alpha=0.5 - 0.25 * n / one)
    return minus_half.add_(before[:n]).add_(across, alpha=2.0 / two)


def _within_blocks(y: Tensor) -> Tensor:
    """sum |y_i - y_j| over all j before i in its row; y: (rows, side)."""
    return (y.unsqueeze(2) - y.unsqueeze(1)).abs_().tril_().sum(2)


def _add_between_blocks(total: Tensor, y: Tensor, rank: Tensor, parts: int, levels: int) -> None:
    """Add sum |y_i - y_j| over all j in an earlier block of x than i, of the blocks of all levels, in place.

    total: (N,), in the order of x; y, rank: in that of y; rank: of x; N = side parts^levels.
    """
    size = len(y)
    y, rank = y.unsqueeze(0), rank.unsqueeze(0)
    for level in range(levels):
        part = torch.div(rank % size if level else rank, size // parts, rounding_mode="trunc")
        total.scatter_add_(0, rank.flatten(), _beyond(y, part, parts).flatten())
        if level < levels - 1:
            at = part.sort(dim=1, stable=True).indices
            size //= parts
            y, rank = y.gather(1, at).view(-1, size), rank.gather(1, at).view(-1, size)


def _beyond(y: Tensor, part: Tensor, parts: int) -> Tensor:
    """sum |y_i - y_j| over all j of the same row in an earlier part than i, (rows, size); y rises along rows."""
    # 1 or 0 by arithmetic, which is several times as fast as a comparison
    later = torch.arange(parts, dtype=y.dtype, device=y.device).unsqueeze(1)
    earlier = (later - part.to(y.dtype).unsqueeze(1)).clamp_(0.0, 1.0)
    counts, sums = earlier.cumsum(2), earlier.mul_(y.unsqueeze(1)).cumsum(2)
    own = part.unsqueeze(1)
    below = torch.addcmul(sums.gather(1, own).squeeze(1), counts.gather(1, own).squeeze(1), y, value=-1.0)
    both = torch.addcmul(sums[:, :, -1].gather(1, part), counts[:, :, -1].gather(1, part), y, value=-1.0)
    return torch.sub(both, below, alpha=2.0)
