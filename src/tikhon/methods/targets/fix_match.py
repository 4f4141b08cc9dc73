"""FixMatch: what a model is sure of when it sees an input plainly, it must also say when it sees it distorted."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.augmentations import View, drawn_like, noise, one_after_another, shift, viewed
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.pool import Dataset, Pool
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms


def pseudo_labels(probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The most probable class of every sample, and whether it is at least as probable as the threshold.

    probabilities: (B, K). Returns (B,) int64 and (B,) bool.

    >>> pseudo_labels(torch.tensor([[0.04, 0.96], [0.6, 0.4]]), 0.95)
    (tensor([1, 0]), tensor([ True, False]))
    """
    largest, labels = probabilities.max(1)
    return labels, largest >= threshold


class FixMatch(Method):
    """Learn from inputs without labels: take sure predictions as labels and ask for them under strong distortion.

    Use it where labels are few and inputs many, and where you know distortions that keep the meaning: the strong view
    decides how good it is (RandAugment with Cutout in the paper; give yours). Not where unlabelled inputs are of other
    classes, nor with so few labels that first guesses are mostly wrong, because it then grows sure of them.

        loss = task + strength (1 / (mu B)) sum_u [max_k p_k(weak(u)) >= threshold] l(strong(u), argmax_k p_k(weak(u)))

    u: mu B inputs drawn from those without labels; l: the recipe's loss; p has no gradient. Views of the labelled batch
    are yours to make (a weak one in the paper), as is a learning rate that falls and an average of the weights
    (`tikhon.EMA`), both of which the paper has. The batch in hand, the weak and the strong views are passes of their
    own, the last two with batch statistics of theirs; in the official code all are one batch.

    unlabelled: a tensor (M, ...) or a map-style data set of inputs, given again on resume; in the paper the labelled
    ones are among them; strength: at least 0, 1; threshold: in [0, 1], 0.95; ratio: mu, 7; weak, strong: (inputs,
    generator) -> inputs; by default shifts by up to a pixel, and by up to two with Gaussian noise of 0.5.

    Cost: two further passes on mu times as many inputs, one of them with gradient.
    Reference: Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang, Raffel 2020, arXiv 2001.07685.

    >>> recipe = tikhon.Recipe(tikhon.FixMatch(torch.randn(256, 1, 8, 8)))
    """

    card = Card(
        title="FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
        authors="Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang, Raffel",
        year=2020,
        arxiv="2001.07685",
        problems=("overfitting",),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{\mu B}\sum_u"
        r"[\max p(\alpha(u))\ge\tau]\,l(\mathcal{A}(u), \arg\max p(\alpha(u)))",
        claim="State of the art with few labels, by pseudo-labels of weak views asked for under strong ones.",
        helps="Few labels, many inputs of the same classes, and strong distortions that keep the meaning.",
        hurts="Unlabelled inputs of other classes; first guesses that are mostly wrong; weak distortions.",
        cost="Two passes on mu times as many inputs, one of them with gradient.",
    )
    needs = frozenset({"classes"})
    exempt = {"accumulation": "every micro-batch draws views and inputs of its own"}

    def __init__(
        self,
        unlabelled: Tensor | Dataset,
        strength: Strength = 1.0,
        threshold: Strength = 0.95,
        ratio: int = 7,
        weak: View | None = None,
        strong: View | None = None,
    ) -> None:
        super().__init__()
        self.pool = Pool(unlabelled, "fix_match")
        self.strength = checked("strength", strength, low=0.0)
        self.threshold = checked("threshold", threshold, low=0.0, high=1.0)
        if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 1:
            raise TikhonError(f"ratio must be a positive integer, not {ratio!r}.")
        self.ratio = ratio
        self.weak = weak or shift(1)
        self.strong = strong or one_after_another(shift(2), noise(0.5))

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        if output.ndim != 2:
            raise TikhonError(f"{self.key} needs class scores (B, K); the model gave {tuple(output.shape)}.")
        x = drawn_like(self.pool, self.ratio * len(output), step)
        with torch.no_grad():
            p = step.loss.probabilities(step.forward(viewed(x, self.weak, step, self.key), redraw=True))
        labels, sure = pseudo_labels(p, step.value(self.threshold))
        scores = step.loss.scores(step.forward(viewed(x, self.strong, step, self.key), redraw=True))
        return {"pseudo-labels": Term((step.loss.hard(scores, labels) * sure).mean(), self.strength, per_sample=False)}
