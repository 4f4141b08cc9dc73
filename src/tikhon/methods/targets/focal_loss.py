"""Focal loss: samples that are right already count less, so that the hard ones are learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import Loss, with_per_class
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.precision import at_least_float32


def focal_losses(log_probabilities: Tensor, gamma: float = 2.0) -> Tensor:
    """-(1 - p_k)^gamma log p_k of every class (Lin et al. 2017, arXiv 1708.02002, eq. 4).

    log_probabilities: (..., any shape), at most 0; gamma: at least 0; 0 is cross-entropy. Returns the same shape, in
    float32 at least, between 0 and cross-entropy.

    >>> focal_losses(torch.tensor([0.5, 0.9]).log(), gamma=2.0)
    tensor([0.1733, 0.0011])
    """
    if gamma == 0.0:
        return -log_probabilities
    log_p = at_least_float32(log_probabilities)
    # At p = 1 the slope of a power below 1 is infinite, and times a loss of 0 it would be NaN.
    wrong = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    return -(wrong**gamma) * log_p


class FocalLoss(Method):
    """Cross-entropy in which a sample counts the less, the better it is predicted.

    Use it where easy samples outnumber the ones that matter, as the background does in detection, or where a classifier
    is over-confident: its gradient ends before certainty. Not where labels are wrong: the samples that it holds on to
    are those; nor where probabilities must be the true ones, which it underestimates.

        loss = -a_y (1 - p_y)^gamma log p_y

    gamma: focusing, at least 0, 2 by default; alpha: a, one weight a class, None for ones. These multiply the loss; the
    `weight` of the base loss, as torch has it, divides by the weights of the batch as well. It provides the loss
    function: class weights and ignored labels work as before, and a soft or mixed target means the expected loss.

    Cost: two elementwise passes over the log-probabilities.
    Reference: Lin, Goyal, Girshick, He, Dollar 2017, arXiv 1708.02002, there for independent sigmoids; calibration:
    Mukhoti et al. 2020, arXiv 2002.09437.

    >>> recipe = tikhon.Recipe(tikhon.FocalLoss(gamma=2.0))
    """

    card = Card(
        title="Focal Loss for Dense Object Detection",
        authors="Lin, Goyal, Girshick, He, Dollar",
        year=2017,
        arxiv="1708.02002",
        problems=("imbalance", "calibration"),
        formula=r"L = -\alpha_y (1-p_y)^\gamma \log p_y",
        claim="Lets a dense detector learn from a vast majority of easy background; later work: better calibration.",
        helps="Many easy samples beside few hard ones, over-confident networks.",
        hurts="Wrong labels; wherever probabilities must be neither too high nor too low.",
        cost="Two elementwise passes over the log-probabilities.",
        neutral="gamma=0",
    )
    slots = {"batch": "select"}
    needs = frozenset({"classes"})

    def __init__(self, gamma: Strength = 2.0, alpha: Sequence[float] | None = None) -> None:
        super().__init__()
        self.gamma = checked("gamma", gamma, low=0.0)
        self.alpha: Tensor | None = None if alpha is None else _weights(alpha)
        self._now = 2.0  # gamma in this step

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._now = step.value(self.gamma)
        return inputs, target

    def loss_function(self, loss: Loss) -> Loss:
        return with_per_class(loss, self._losses, self.key)

    def _losses(self, log_probabilities: Tensor) -> Tensor:
        losses = focal_losses(log_probabilities, self._now)
        if self.alpha is None:
            return losses
        if len(self.alpha) != losses.shape[1]:
            raise TikhonError(f"{self.key} has alpha of {len(self.alpha)} classes, the model {losses.shape[1]}.")
        return losses * self.alpha.to(losses).reshape(-1, *[1] * (losses.ndim - 2))


def _weights(alpha: Sequence[float]) -> Tensor:
    if isinstance(alpha, (float, int)) or not all(math.isfinite(one) and one >= 0.0 for one in alpha):
        raise TikhonError(f"alpha must be one finite weight a class, none below 0, as in [0.25, 0.75]; not {alpha!r}.")
    return torch.tensor([float(one) for one in alpha])
