"""Adaptive gradient clipping: no unit's gradient is large against the unit's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.math.precision import at_least_float32


def unitwise_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The Euclidean norm of every output unit's weights, shaped so that it divides them; in float32 at least.

    tensors: weights (out, ...), whose norms are (out, 1, ...); a vector or a scalar, such as a bias, is one unit.

    >>> unitwise_norms([torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([3.0, 4.0])])
    [tensor([[5.],
            [1.]]), tensor([5.])]
    """
    return [
        torch.linalg.vector_norm(at_least_float32(one), dim=tuple(range(1, one.ndim)) or None, keepdim=True)
        for one in tensors
    ]


def adaptively_clipped(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], clipping: float, eps: float
) -> list[Tensor]:
    """g_u min(1, clipping max(||w_u||, eps) / ||g_u||) for every unit u (Brock et al. 2021, arXiv 2102.06171, eq. 3).

    weights, gradients: one pair of equal shape a parameter; clipping, eps: positive. Returns new tensors.

    >>> adaptively_clipped([torch.tensor([[3.0, 4.0]])], [torch.tensor([[0.0, 2.0]])], 0.1, 1e-3)
    [tensor([[0.0000, 0.5000]])]
    """
    bounds = torch._foreach_mul(torch._foreach_clamp_min(unitwise_norms(weights), eps), clipping)
    factors = torch._foreach_div(bounds, unitwise_norms(gradients))  # infinite, so 1, where a gradient is zero
    torch._foreach_clamp_max_(factors, 1.0)
    return [gradient * factor.to(gradient.dtype) for gradient, factor in zip(gradients, factors, strict=True)]


class AdaptiveGradientClipping(Method):
    """Scale a unit's gradient down where it is large against the unit's weights.

    Use it to train networks without normalisation layers at large learning rates and batch sizes, where one bound for
    the whole gradient would have to be tuned for each; with normalisation it adds little. It acts on the finished
    gradient of the optimizer step, after other methods but noise.

        g_u <- g_u min(1, clipping max(||w_u||, eps) / ||g_u||)     for every output unit u

    clipping: positive, 0.01 for batches of 4096 images; smaller batches bear larger ones, 0.04 to 0.16; eps: least norm
    of weights, positive, so that units of zeros can move; where: which parameters; head: whether also those of the last
    `nn.Linear`, which the paper leaves out. A bias vector counts as one unit.

    Cost: a few passes over weights and gradients. Reference: Brock, De, Smith, Simonyan 2021, arXiv 2102.06171.

    >>> recipe = tikhon.Recipe(tikhon.AdaptiveGradientClipping(clipping=0.01))
    """

    card = Card(
        title="High-Performance Large-Scale Image Recognition Without Normalization",
        authors="Brock, De, Smith, Simonyan",
        year=2021,
        arxiv="2102.06171",
        problems=("stability", "speed"),
        formula=r"g_u \leftarrow g_u \min\big(1, \lambda \max(\lVert w_u\rVert, \epsilon) / \lVert g_u\rVert\big)",
        claim="Lets networks without normalisation train with large batches and strong augmentation.",
        helps="Deep networks without normalisation, large learning rates.",
        hurts="Too small a bound slows training; weights that start at zero hardly leave it.",
        cost="A few passes over weights and gradients.",
        neutral="clipping=1e30",
    )
    slots = {"gradients": "clip"}

    def __init__(
        self, clipping: Strength = 0.01, eps: Strength = 1e-3, where: Where = "all", head: bool = False
    ) -> None:
        super().__init__()
        self.clipping = checked("clipping", clipping, low=1e-6)
        self.eps = checked("eps", eps, low=1e-9)
        self.where, self.head = where, head

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        last = None if self.head else _last_linear(step.model)
        leaves = [one.leaf for one in parameters if one.module is not last]
        found = [leaf.grad for leaf in leaves if leaf.grad is not None]
        if found:
            clipped = adaptively_clipped(leaves, found, step.value(self.clipping), step.value(self.eps))
            torch._foreach_copy_(found, clipped)


def _last_linear(model: nn.Module) -> nn.Module | None:
    """The classifier by convention; None in a model without linear layers."""
    return next((one for one in reversed(list(model.modules())) if isinstance(one, nn.Linear)), None)
