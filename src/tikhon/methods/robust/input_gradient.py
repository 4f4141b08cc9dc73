"""Input gradient penalty: a loss that changes little when the inputs do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.sensitivity import differentiable
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms


class InputGradientPenalty(Method):
    """Penalise the gradient of every sample's loss with respect to its input.

    Use it for networks that are to resist small changes of their inputs, noise and attacks in one step, and whose input
    gradients are to be read as explanations: they become smoother. Against strong attacks adversarial training does
    more. Where the network fits its data the gradient is small of itself; `JacobianPenalty` acts there too.

        loss = mean_i [ l_i + strength ||d l_i / d x_i||_2^2 ]

    strength: at least 0, in units of the squared inputs over the loss: search it on a grid of powers of ten. The loss
    is the one that is trained, with smoothed or mixed targets where there are any. Batch norm mixes samples, and the
    penalty then counts their influence on each other too. It needs second derivatives: of ReLU networks all but those
    of the loss are zero, which is fine; fused attention and `torch.compile` with its default backend have none.

    Cost: a second backward pass, and the backward pass through it.
    Reference: Drucker and Le Cun 1992 (double backpropagation); Ross and Doshi-Velez 2017, arXiv 1711.09404.

    >>> recipe = tikhon.Recipe(tikhon.InputGradientPenalty(strength=0.1))
    """

    card = Card(
        title="Improving the Adversarial Robustness and Interpretability of Deep Neural Networks by Regularizing their "
        "Input Gradients",
        authors="Ross, Doshi-Velez",
        year=2017,
        arxiv="1711.09404",
        problems=("robustness", "overfitting"),
        formula=r"L = \tfrac1n\sum_i \ell_i + \lambda \lVert\partial\ell_i/\partial x_i\rVert_2^2",
        claim="Networks resist attacks, those made for other networks most of all, and their gradients explain more.",
        helps="Attacks in one step, noise, and gradients that people read.",
        hurts="Strong attacks in many steps are resisted less than by adversarial training.",
        cost="A second backward pass, and the backward pass through it.",
    )
    slots = {"batch": "mix"}  # behind whatever makes new inputs
    exempt = {"shards": "backward goes through the network twice, and after the first time the weights are let go"}

    def __init__(self, strength: Strength = 0.1) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        if step.value(self.strength) == 0.0:
            return inputs, target
        return differentiable(inputs, self.key), target

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        # Without the samples' weights: they weigh the penalty as they do the loss, once.
        bare = replace(target, parts=tuple(replace(part, weight=None) for part in target.parts))
        losses, _ = weighted_losses(step.loss, output, bare)
        (gradient,) = torch.autograd.grad(losses.sum(), step.inputs, create_graph=True)
        return {"input_gradient": Term(gradient.flatten(1).square().sum(1), self.strength)}
