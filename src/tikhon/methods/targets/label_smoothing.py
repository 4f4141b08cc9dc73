"""Label smoothing: ask for a little less than certainty."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def smoothed(probabilities: Tensor, amount: float) -> Tensor:
    """(1 - amount) * q + amount / K (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    probabilities: (..., K), rows sum to 1; amount: in [0, 1]. Returns (..., K), rows sum to 1.

    >>> import torch
    >>> smoothed(torch.tensor([1.0, 0.0]), 0.1)
    tensor([0.9500, 0.0500])
    """
    return (1.0 - amount) * probabilities + amount / probabilities.shape[-1]


class LabelSmoothing(Method):
    """Give every class a share of each target's probability.

    Use it where a classifier is over-confident. Not where its confidence is to be used to rank or to distil: smoothing
    erases what distinguishes wrong answers.

        q = (1 - e) q + e / K

    strength: e, the probability spread over all K classes, in [0, 1]; 0.1 by custom.

    Cost: one sum over the log-probabilities. Reference: Szegedy et al. 2016, arXiv 1512.00567.

    >>> recipe = tikhon.Recipe(tikhon.LabelSmoothing(0.1))
    """

    card = Card(
        title="Rethinking the Inception Architecture for Computer Vision",
        authors="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
        year=2015,
        arxiv="1512.00567",
        problems=("overfitting", "calibration", "noisy-labels"),
        formula=r"q' = (1-\epsilon) q + \epsilon / K",
        claim="Lower error on ImageNet than hard labels, and less confident predictions.",
        helps="Over-confident classifiers, mild label noise.",
        hurts="Teachers for distillation, out-of-distribution detection by confidence, very strong noise.",
        cost="One sum over the log-probabilities.",
    )
    slots = {"targets": "smooth"}
    needs = frozenset({"classes"})

    def __init__(self, strength: Strength = 0.1) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0, high=1.0)

    def targets(self, output: Tensor, target: Target, step: Step) -> Target:
        return target.smooth(step.value(self.strength))
