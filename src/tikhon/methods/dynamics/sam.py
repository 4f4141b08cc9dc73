"""SAM: sharpness-aware minimisation, the gradient at the worst point nearby."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Where
from tikhon.core.step import Inner, Step
from tikhon.core.strength import Strength, checked


def ascent_offsets(gradients: Sequence[Tensor], radius: float) -> list[Tensor]:
    """radius * g / ||g||, the norm over all tensors together (Foret et al. 2021, arXiv 2010.01412, eq. 2 with p = 2).

    Gradients that are all zero give offsets of zero.

    >>> ascent_offsets([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    [tensor([0.6000]), tensor([0.8000])]
    """
    # Scaled to a largest element of 1 first: the squares of small gradients underflow, and dividing by a norm of 0
    # would throw the weights far away just when the network has fitted its data.
    largest = torch.stack(torch._foreach_norm(list(gradients), ord=float("inf"))).amax()
    scaled = torch._foreach_div(list(gradients), largest.clamp_min(torch.finfo(largest.dtype).tiny))
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(scaled)))
    return list(torch._foreach_mul(scaled, radius / norm.clamp_min(1.0)))


class SAM(Method):
    """Minimise the loss at the worst point within a radius of the weights.

    Use it where a network over-fits and time allows: each step costs two. Not with very small data sets and an already
    strong penalty. Weights return exactly, by copy, when backward ends.

        e = radius * g / ||g||,   update with the gradient of loss(w + e)

    radius: in units of the weights' Euclidean norm, at least 0; 0.05 on CIFAR and ImageNet; where: which parameters.

    Cost: a second forward and backward pass, a copy of the weights. Under micro-batches each has its own perturbation.
    Reference: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412.

    >>> recipe = tikhon.Recipe(tikhon.SAM(radius=0.05))
    """

    card = Card(
        title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
        authors="Foret, Kleiner, Mobahi, Neyshabur",
        year=2020,
        arxiv="2010.01412",
        problems=("overfitting", "noisy-labels", "robustness"),
        formula=r"\min_w \max_{\lVert\epsilon\rVert_2\le\rho} L(w+\epsilon)",
        claim="Better generalisation across data sets, and robustness to label noise on par with dedicated methods.",
        helps="Over-parameterised networks, label noise.",
        hurts="Budgets counted in passes; tiny models that under-fit.",
        cost="A second forward and backward pass.",
        neutral="radius=0",
    )
    exempt = {"accumulation": "every micro-batch has a perturbation of its own"}

    def __init__(self, radius: Strength = 0.05, where: Where = "all") -> None:
        super().__init__()
        self.radius = checked("radius", radius, low=0.0)
        self.where = where

    def around(self, inner: Inner, step: Step) -> Tensor:
        loss = inner()
        radius = step.value(self.radius)
        if radius == 0.0:
            return loss
        leaves = [one.leaf for one in step.select(self.where)]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        pairs = [(leaf, gradient) for leaf, gradient in zip(leaves, found, strict=True) if gradient is not None]
        step.perturb([leaf for leaf, _ in pairs], ascent_offsets([gradient for _, gradient in pairs], radius))
        return inner()
