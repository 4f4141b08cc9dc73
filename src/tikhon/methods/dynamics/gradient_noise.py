"""Gradient noise: Gaussian noise on every gradient, less of it as training goes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked


class GradientNoise(Method):
    """Add Gaussian noise to the gradient, annealed with the number of steps.

    Use it where training starts badly: very deep networks, poor initial weights, many saddles. Not where training goes
    well: it then gains little, and with optimizers that divide by the size of gradients (Adam) noise moves even
    parameters that the loss does not touch.

        g <- g + N(0, s_t^2),   s_t^2 = eta / (1 + t)^gamma,   t the optimizer steps so far

    eta: variance of the noise of the first step, at least 0, in units of the gradient squared; the paper tries 0.01,
    0.3 and 1; gamma: how fast it falls, at least 0, 0.55; where: which parameters. Noise comes after clipping, as in
    the paper.

    Cost: one random number a weight. Reference: Neelakantan et al. 2015, arXiv 1511.06807, equation 1.

    >>> recipe = tikhon.Recipe(tikhon.GradientNoise(eta=0.01))
    """

    card = Card(
        title="Adding Gradient Noise Improves Learning for Very Deep Networks",
        authors="Neelakantan, Vilnis, Le, Sutskever, Kaiser, Kurach, Martens",
        year=2015,
        arxiv="1511.06807",
        problems=("stability", "overfitting"),
        formula=r"g_t \leftarrow g_t + \mathcal N\big(0, \eta/(1+t)^\gamma\big)",
        claim="Annealed noise lets very deep networks train from poor initial weights, and lowers training loss.",
        helps="Deep networks that start badly.",
        hurts="Training that goes well without; large eta, which drowns the gradient.",
        cost="One random number a weight.",
        neutral="eta=0",
    )
    slots = {"gradients": "noise"}

    def __init__(self, eta: Strength = 0.01, gamma: Strength = 0.55, where: Where = "all") -> None:
        super().__init__()
        self.eta = checked("eta", eta, low=0.0)
        self.gamma = checked("gamma", gamma, low=0.0)
        self.where = where

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        eta = step.value(self.eta)
        if eta == 0.0:
            return
        deviation = (eta / (1.0 + step.number) ** step.value(self.gamma)) ** 0.5
        found = [one.leaf.grad for one in parameters if one.leaf.grad is not None]
        noise = [
            torch.randn(one.shape, generator=step.generator(one.device), dtype=one.dtype, device=one.device)
            for one in found
        ]
        torch._foreach_add_(found, noise, alpha=deviation)
