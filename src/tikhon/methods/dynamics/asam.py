"""ASAM: sharpness-aware minimisation in a neighbourhood that is measured against the size of each weight."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Where
from tikhon.core.shards import whole
from tikhon.core.step import Inner, Step
from tikhon.core.strength import Strength, checked
from tikhon.math.ascent import scaled_ascent_offsets


class ASAM(Method):
    """Minimise the loss at the worst point nearby, where near is relative to each weight's size.

    Use it as SAM, where weights of very different sizes should count alike: layers can be rescaled against each other
    without changing the network, and with it the neighbourhood, so that one radius fits more networks. Each step costs
    two. Weights return exactly, by copy, when backward ends.

        e = radius * T^2 g / ||T g||,   T = |w| + eta for weights, 1 for biases;   update with d loss(w + e)

    radius: at least 0, in units of relative change: 0.5 on CIFAR-10, 1 on CIFAR-100, about ten times that of SAM; eta:
    at least 0, 0.01, keeps weights at zero from standing still; where: which parameters. As in the official code, what
    is called a weight, those of norms too, is measured against its size, and biases are not.

    Cost: a second forward and backward pass, a copy of the weights. Under micro-batches each has its own perturbation.
    Reference: Kwon, Kim, Park, Choi 2021, arXiv 2102.11600.

    >>> recipe = tikhon.Recipe(tikhon.ASAM(radius=0.5))
    """

    card = Card(
        title="ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks",
        authors="Kwon, Kim, Park, Choi",
        year=2021,
        arxiv="2102.11600",
        problems=("overfitting", "noisy-labels", "robustness"),
        formula=r"\min_w \max_{\lVert T_w^{-1}\epsilon\rVert_2\le\rho} L(w+\epsilon),\quad T_w = |w| + \eta",
        claim="Adaptive sharpness predicts the generalisation gap better than sharpness, and minimising it beats SAM.",
        helps="Over-parameterised networks whose layers differ in scale, label noise.",
        hurts="Budgets counted in passes; tiny models that under-fit.",
        cost="A second forward and backward pass.",
        neutral="radius=0",
    )
    exempt = {"accumulation": "every micro-batch has a perturbation of its own"}

    def __init__(self, radius: Strength = 0.5, eta: Strength = 0.01, where: Where = "all") -> None:
        super().__init__()
        self.radius = checked("radius", radius, low=0.0)
        self.eta = checked("eta", eta, low=0.0)
        self.where = where

    def around(self, inner: Inner, step: Step) -> Tensor:
        loss = inner()
        radius, eta = step.value(self.radius), step.value(self.eta)
        if radius == 0.0:
            return loss
        chosen, gradients = step.gradients(loss, self.where)
        weights = [whole(one.leaf.detach()) for one in chosen]
        scales = [
            weight.abs() + eta if "weight" in one.attribute else torch.ones_like(weight)
            for one, weight in zip(chosen, weights, strict=True)
        ]
        step.perturb([one.leaf for one in chosen], scaled_ascent_offsets(scales, gradients, radius))
        return inner()
