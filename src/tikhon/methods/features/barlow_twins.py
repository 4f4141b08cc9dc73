"""Barlow Twins: features learned without labels, alike for two views of a sample and decorrelated."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.losses import Loss, no_loss
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.core.views import two_views
from tikhon.math.decorrelation import barlow_twins, standardised


class BarlowTwins(Method):
    """Learn features without labels: alike for two views of a sample, and each saying something of its own.

    Use it to pretrain a network where labels are few and other data many. A batch is two views of the same samples, one
    after the other, and needs no target: `recipe.loss(torch.cat([view(x), view(x)]))`, where `view` is your random
    augmentation. The output is what a wide projector gives; throw the projector away afterwards. Not where no
    augmentation is known that keeps the meaning, nor with batches of less than some dozens of samples. In long training
    its features overfit, for which there is `MixedBarlowTwins`.

        loss = sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2,   C = z_A^T z_B / B

    z: features standardised over the batch. redundancy: at least 0, 0.005, or 1/D where there are few features. Views
    go through the network as one batch, so that batch norm sees both; the official code makes a pass of each.

    Cost: two views are twice the batch; a matrix of D x D.
    Reference: Zbontar, Jing, Misra, LeCun, Deny 2021, arXiv 2103.03230.

    >>> recipe = tikhon.Recipe(tikhon.BarlowTwins(redundancy=1 / 128))
    >>> model = recipe.prepare(torch.nn.Linear(4, 128))
    >>> _ = recipe.attach(torch.optim.Adam(model.parameters()))
    >>> x = torch.randn(32, 4)
    >>> recipe.loss(torch.cat([x, x + 0.1 * torch.randn(32, 4)])).backward()
    """

    card = Card(
        title="Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
        authors="Zbontar, Jing, Misra, LeCun, Deny",
        year=2021,
        arxiv="2103.03230",
        problems=("overfitting",),
        formula=r"L = \sum_i(1-C_{ii})^2 + \lambda\sum_{i\ne j}C_{ij}^2",
        claim="Features learned without labels classify well from few labels, without large batches or negatives.",
        helps="Few labels and many other samples; wide projectors.",
        hurts="Data whose augmentations change the meaning; small batches; long training on few samples.",
        cost="Two views of every sample, and a matrix as wide as the features.",
        neutral="",
    )
    breaks = frozenset({"classes", "values"})
    exempt = {
        "neutral": "the loss takes the place of the recipe's",
        "accumulation": "correlations are those of a batch",
        "permutation": "the two views of a sample are known by their place in the batch",
    }

    def __init__(self, redundancy: Strength = 0.005) -> None:
        super().__init__()
        self.redundancy = checked("redundancy", redundancy, low=0.0)

    def loss_function(self, loss: Loss) -> Loss:
        return no_loss

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        invariance, redundancy = barlow_twins(*map(standardised, two_views(output, self.key)))
        return {
            "invariance": Term(invariance, per_sample=False),
            "redundancy": Term(redundancy, self.redundancy, per_sample=False),
        }
