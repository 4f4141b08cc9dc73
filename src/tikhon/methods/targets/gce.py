"""Generalised cross-entropy: between cross-entropy, which learns fast, and absolute error, which wrong labels spare."""

from __future__ import annotations

import math
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


def gce_losses(log_probabilities: Tensor, q: float = 0.7, threshold: float = 0.0) -> Tensor:
    """L_q = (1 - p_k^q) / q of every class (Zhang, Sabuncu 2018, arXiv 1805.07836, eq. 6).

    log_probabilities: (..., any shape), at most 0; q: in [0, 1], where 0 is the limit, -log p, and 1 is half of the
    absolute error; threshold: k of the truncated loss (eq. 12), in [0, 1): L_q(k) wherever p is below. Returns the same
    shape, in float32 at least, between 0 and 1 / q.

    >>> gce_losses(torch.tensor([0.25, 0.81]).log(), q=0.5)
    tensor([1.0000, 0.2000])
    """
    log_p = log_probabilities if threshold == 0.0 else log_probabilities.clamp_min(math.log(threshold))
    if q == 0.0:
        return -log_p
    return -torch.expm1(q * at_least_float32(log_p)) / q


class GeneralisedCrossEntropy(Method):
    """A loss whose gradient is cross-entropy's times p_y^q: the less a label is believed, the less it teaches.

    Use it where labels are wrong and nothing is known about how: no memory, no second network, no clean set. Not for
    clean labels, and not with many classes and a large q: from chance level, p = 1/K, it hardly learns.

        loss = (1 - p_y^q) / q

    q: in [0, 1], 0.7 by default; 0 is cross-entropy, 1 is half of the absolute error; threshold: k in [0, 1), a label
    less probable than that teaches nothing (the truncated loss); 0 by default, and as it needs a network that knows
    something already, best a schedule such as `tikhon.stepwise({0.0: 0.0, 0.3: 0.5})`. The paper prunes every ten
    epochs by its best network; here the network in hand decides in every step.

    It provides the loss function: class weights and ignored labels work as before, and a soft or mixed target means the
    expected loss.

    Cost: one elementwise pass over the log-probabilities. Reference: Zhang, Sabuncu 2018, arXiv 1805.07836.

    >>> recipe = tikhon.Recipe(tikhon.GeneralisedCrossEntropy(q=0.7))
    """

    card = Card(
        title="Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
        authors="Zhang, Sabuncu",
        year=2018,
        arxiv="1805.07836",
        problems=("noisy-labels",),
        formula=r"L_q = \frac{1 - p_y^q}{q}",
        claim="Trains any network through strong label noise, where cross-entropy memorises it.",
        helps="Wrong labels of unknown structure.",
        hurts="Clean labels, many classes: where predictions are near chance, learning is slow.",
        cost="One elementwise pass over the log-probabilities.",
        neutral="q=0",
    )
    slots = {"batch": "select"}
    needs = frozenset({"classes"})

    def __init__(self, q: Strength = 0.7, threshold: Strength = 0.0) -> None:
        super().__init__()
        self.q = checked("q", q, low=0.0, high=1.0)
        self.threshold = checked("threshold", threshold, low=0.0, high=1.0)
        self._now = (0.7, 0.0)  # q and threshold in this step

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._now = (step.value(self.q), step.value(self.threshold))
        return inputs, target

    def loss_function(self, loss: Loss) -> Loss:
        return with_per_class(loss, self._losses, self.key)

    def _losses(self, log_probabilities: Tensor) -> Tensor:
        return gce_losses(log_probabilities, *self._now)
