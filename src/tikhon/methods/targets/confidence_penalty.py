"""Confidence penalty: predictions are rewarded for their entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.losses import over_positions
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32


def entropy(probabilities: Tensor) -> Tensor:
    """H(p) = -sum_k p_k log p_k over dimension 1, in nats.

    probabilities: (B, K, ...), sum to 1 over the classes, zeros included. Returns (B, ...), in float32 at least, in
    [0, log K]; slopes are finite at 0 too.

    >>> entropy(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    tensor([0.6931, 0.3251])
    """
    p = at_least_float32(probabilities)
    return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(1)


class ConfidencePenalty(Method):
    """Subtract the entropy of every prediction from the loss.

    Use it where a classifier is over-confident. It is the penalty of label smoothing with the divergence the other way
    round: it does not say how the wrong classes share what is left. Not where labels are wrong and the network is
    to become sure of the right ones; nor together with a large amount of smoothing, which asks for the same.

        loss = task - strength H(p),   or with a threshold: task + strength max(0, threshold - H(p))

    strength: beta, at least 0, 0.1 by default; the paper tries 0.1 to 8; threshold: in nats, at least 0; below it the
    entropy is penalised, above it is let be, so that learning is not slowed where nothing is certain. None has none.
    The paper prints the thresholded form with a minus, which would reward confidence.

    Cost: one sum over the probabilities.
    Reference: Pereyra, Tucker, Chorowski, Kaiser, Hinton 2017, arXiv 1701.06548.

    >>> recipe = tikhon.Recipe(tikhon.ConfidencePenalty(0.1))
    """

    card = Card(
        title="Regularizing Neural Networks by Penalizing Confident Output Distributions",
        authors="Pereyra, Tucker, Chorowski, Kaiser, Hinton",
        year=2017,
        arxiv="1701.06548",
        problems=("overfitting", "calibration"),
        formula=r"L = \mathrm{task} - \beta H(p_\theta(y|x))",
        claim="Improves strong models of images, language, translation and speech, without other settings changed.",
        helps="Over-confident classifiers.",
        hurts="Strong penalties, which leave predictions too undecided.",
        cost="One sum over the probabilities.",
    )
    needs = frozenset({"classes"})

    def __init__(self, strength: Strength = 0.1, threshold: Strength | None = None) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.threshold = None if threshold is None else checked("threshold", threshold, low=0.0)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        undecided = entropy(step.loss.probabilities(at_least_float32(output)))
        penalty = -undecided if self.threshold is None else (step.value(self.threshold) - undecided).clamp_min(0.0)
        return {"confidence": Term(over_positions(penalty, step.loss, target), self.strength)}
