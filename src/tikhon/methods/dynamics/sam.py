"""SAM: sharpness-aware minimisation, the gradient at the worst point nearby."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Where
from tikhon.core.step import Inner, Step
from tikhon.core.strength import Strength, checked
from tikhon.math.ascent import ascent_offsets


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
        chosen, gradients = step.gradients(loss, self.where)
        step.perturb([one.leaf for one in chosen], ascent_offsets(gradients, radius))
        return inner()
