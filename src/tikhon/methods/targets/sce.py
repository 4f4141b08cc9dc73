"""Symmetric cross-entropy: labels are asked how well they fit the prediction, as well as the other way round."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.losses import Loss, with_per_class
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.precision import at_least_float32


def reverse_cross_entropy(log_probabilities: Tensor, log_zero: float = -4.0) -> Tensor:
    """-sum_j p_j log 1[j = k] of every class k, with log 0 = A (Wang et al. 2019, arXiv 1908.06112, eq. 6).

    That is -A (1 - p_k). log_probabilities: (..., any shape), at most 0; log_zero: A, below 0. Returns the same shape,
    in float32 at least, between 0 and -A.

    >>> reverse_cross_entropy(torch.tensor([0.25, 0.75]).log())
    tensor([3.0000, 1.0000])
    """
    return log_zero * torch.expm1(at_least_float32(log_probabilities))


class SymmetricCrossEntropy(Method):
    """Cross-entropy in small measure, and in large measure the cross-entropy of the label under the prediction.

    Use it where labels are wrong: the reverse part, an absolute error, bears symmetric noise, and the forward part
    keeps hard classes learning. Not for clean labels; with many classes give the forward part more.

        loss = alpha CE(y, p) + beta RCE(p, y),   RCE = -A (1 - p_y)

    alpha, beta: weights of cross-entropy and of the reverse, at least 0; 0.1 and 1 on CIFAR-10 (the default), 6 and 0.1
    on CIFAR-100; log_zero: A, what log 0 is taken to be, at most 0; -4 by default. The official code clips labels at
    1e-4 instead, that is log_zero = -9.21.

    It provides the loss function: class weights and ignored labels work as before, and a soft or mixed target means the
    expected loss.

    Cost: one elementwise pass over the log-probabilities.
    Reference: Wang, Ma, Chen, Luo, Yi, Bailey 2019, arXiv 1908.06112.

    >>> recipe = tikhon.Recipe(tikhon.SymmetricCrossEntropy(alpha=0.1, beta=1.0))
    """

    card = Card(
        title="Symmetric Cross Entropy for Robust Learning with Noisy Labels",
        authors="Wang, Ma, Chen, Luo, Yi, Bailey",
        year=2019,
        arxiv="1908.06112",
        problems=("noisy-labels",),
        formula=r"L = \alpha\,\mathrm{CE}(y, p) - \beta A (1 - p_y)",
        claim="Neither memorises wrong labels nor leaves hard classes unlearned, as cross-entropy does under noise.",
        helps="Wrong labels, classes of unequal difficulty.",
        hurts="Clean labels; many classes with a small alpha.",
        cost="One elementwise pass over the log-probabilities.",
        neutral="alpha=1, beta=0",
    )
    slots = {"batch": "select"}
    needs = frozenset({"classes"})

    def __init__(self, alpha: Strength = 0.1, beta: Strength = 1.0, log_zero: Strength = -4.0) -> None:
        super().__init__()
        self.alpha = checked("alpha", alpha, low=0.0)
        self.beta = checked("beta", beta, low=0.0)
        self.log_zero = checked("log_zero", log_zero, high=0.0)
        self._now = (0.1, 1.0, -4.0)  # alpha, beta and log_zero in this step

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._now = (step.value(self.alpha), step.value(self.beta), step.value(self.log_zero))
        return inputs, target

    def loss_function(self, loss: Loss) -> Loss:
        return with_per_class(loss, self._losses, self.key)

    def _losses(self, log_probabilities: Tensor) -> Tensor:
        alpha, beta, log_zero = self._now
        forward = -alpha * log_probabilities
        return forward if beta == 0.0 else forward + beta * reverse_cross_entropy(log_probabilities, log_zero)
