"""Interval arithmetic: what a layer makes of a box of inputs, as centre and radius of the box around its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F


def weighted_interval(
    function: Callable[..., Tensor], centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any
) -> tuple[Tensor, Tensor]:
    """The box of W x + b for x in a box: centre W c + b, radius |W| r. Exact for each output (Gowal et al. 2018).

    function: `F.linear` or a convolution, called with input, weight, bias and settings; centre, radius: (B, ...),
    radius at least 0. Returns centre and radius of the outputs.

    >>> weighted_interval(F.linear, torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[1.0, -2.0]]), None)
    (tensor([[0.]]), tensor([[3.]]))
    """
    return function(centre, weight, bias, *settings), function(radius, weight.abs(), None, *settings)


def normalised_interval(
    centre: Tensor,
    radius: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """The box of batch norm with given statistics: weight (x - mean) / sqrt(variance + eps) + bias.

    centre, radius: (B, C, ...); mean, variance, weight, bias: (C,). Returns centre and radius, (B, C, ...).
    """
    shape = (1, -1, *[1] * (centre.ndim - 2))
    scale = (variance + eps).rsqrt()
    scale = (scale if weight is None else scale * weight).reshape(shape)
    moved = (centre - mean.reshape(shape)) * scale
    return moved if bias is None else moved + bias.reshape(shape), radius * scale.abs()


def monotone_interval(function: Callable[[Tensor], Tensor], centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The box of a function that rises in every input, such as a ReLU or the maximum of a window: from its two ends.

    >>> monotone_interval(torch.relu, torch.tensor([-1.0, 0.0, 3.0]), torch.ones(3))
    (tensor([0.0000, 0.5000, 3.0000]), tensor([0.0000, 0.5000, 1.0000]))
    """
    lower, upper = function(centre - radius), function(centre + radius)
    return 0.5 * (upper + lower), 0.5 * (upper - lower)


def margins(centre: Tensor, radius: Tensor, probabilities: Tensor) -> Tensor:
    """The largest value over a box of scores of z_k - q . z, for every class k.

    centre, radius: of the scores z, (B, K); probabilities: the target q, (B, K), rows of sum 1: for a label, how far
    another class may be above it. Returns (B, K), 0 at a label.

    >>> margins(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]))
    tensor([[ 0., -1.]])
    """
    middle = centre - (probabilities * centre).sum(1, keepdim=True)
    others = (probabilities.abs() * radius).sum(1, keepdim=True) - probabilities.abs() * radius
    return middle + others + (1.0 - probabilities).abs() * radius


def linear_margins(
    centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor | None, probabilities: Tensor
) -> Tensor:
    """`margins` of the scores z = W x + b for x in a box: differences are taken of the rows of W, which is tighter.

    centre, radius: of x, (B, D); weight: (K, D); bias: (K,) or None; probabilities: (B, K). Returns (B, K). Takes
    B K D numbers of memory.
    """
    rows = weight - (probabilities @ weight)[:, None]
    scores = F.linear(centre, weight, bias)
    return scores - (probabilities * scores).sum(1, keepdim=True) + (rows.abs() @ radius[:, :, None])[:, :, 0]


def box_around(inputs: Tensor, eps: float, valid: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
    """Centre and radius of all inputs that differ by at most eps in every entry and keep to the valid values.

    inputs: any shape; eps: at least 0; valid: the least and greatest value of an entry, None: no bound.

    >>> box_around(torch.tensor([0.0, 0.5]), 0.5, valid=(0.0, 1.0))
    (tensor([0.2500, 0.5000]), tensor([0.2500, 0.5000]))
    """
    lower, upper = inputs - eps, inputs + eps
    if valid is not None:
        lower, upper = lower.clamp(*valid), upper.clamp(*valid)
    return 0.5 * (upper + lower), 0.5 * (upper - lower)
