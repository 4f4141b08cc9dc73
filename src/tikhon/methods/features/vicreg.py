"""VICReg: features learned without labels, alike for two views of a sample, that neither collapse nor repeat."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.losses import Loss, no_loss
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.core.views import two_views

SMALLEST = 1e-4
"""Added to variances, as in the paper: the root of a feature that is the same for all samples has a gradient."""


def variance_hinge(z: Tensor, floor: float = 1.0) -> Tensor:
    """The mean over features of max(0, floor - sqrt(Var(z_j) + 1e-4)) (Bardes et al. 2022, arXiv 2105.04906, eq. 1).

    z: (B, D), B at least 2; the variance is over B - 1. Returns a scalar, at least 0.

    >>> variance_hinge(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
    tensor(0.4950)
    """
    return F.relu(floor - (z.var(0) + SMALLEST).sqrt()).mean()


def covariance_penalty(z: Tensor) -> Tensor:
    """sum_{i != j} C(z)_ij^2 / D, C the covariance over B - 1 (Bardes et al. 2022, arXiv 2105.04906, eq. 4).

    z: (B, D), B at least 2. Returns a scalar, at least 0; 0 for a single feature.

    >>> covariance_penalty(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    tensor(4.)
    """
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


class VICReg(Method):
    """Learn features without labels: alike for two views of a sample, of enough variance, and uncorrelated.

    Use it to pretrain a network where labels are few and other data many, also where the two views are of different
    kinds, for each view is held from collapse by itself. A batch is two views of the same samples, one after the other,
    and needs no target: `recipe.loss(torch.cat([view(x), view(x)]))`, where `view` is your random augmentation. The
    output is what a wide projector gives; throw the projector away afterwards. Not where no augmentation is known that
    keeps the meaning, nor with batches of less than some dozens of samples.

        loss = invariance mean (z_A - z_B)^2 + variance (v(z_A) + v(z_B)) + covariance (c(z_A) + c(z_B))
        v(z) = mean_j max(0, 1 - sqrt(Var(z_j) + 1e-4)),   c(z) = sum_{i != j} C_ij^2 / D

    invariance, variance, covariance: at least 0; 25, 25, 1. As in the paper's Algorithm 1 the squared distance is the
    mean over features, which its eq. 5 sums; the official code has the mean of v over the views, variance=12.5 here.
    Views go through the network as one batch, so that batch norm sees both; the official code makes a pass of each.

    Cost: two views are twice the batch; two matrices of D x D.
    Reference: Bardes, Ponce, LeCun 2022, arXiv 2105.04906.

    >>> recipe = tikhon.Recipe(tikhon.VICReg())
    >>> model = recipe.prepare(torch.nn.Linear(4, 128))
    >>> _ = recipe.attach(torch.optim.Adam(model.parameters()))
    >>> x = torch.randn(32, 4)
    >>> recipe.loss(torch.cat([x, x + 0.1 * torch.randn(32, 4)])).backward()
    """

    card = Card(
        title="VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
        authors="Bardes, Ponce, LeCun",
        year=2022,
        arxiv="2105.04906",
        problems=("overfitting",),
        formula=r"L = \lambda\,s(Z,Z') + \mu\,[v(Z)+v(Z')] + \nu\,[c(Z)+c(Z')]",
        claim="Features learned without labels classify well, without negatives and without any collapse.",
        helps="Few labels and many other samples; views of different kinds.",
        hurts="Data whose augmentations change the meaning; small batches.",
        cost="Two views of every sample, and two matrices as wide as the features.",
        neutral="",
    )
    breaks = frozenset({"classes", "values"})
    exempt = {
        "neutral": "the loss takes the place of the recipe's",
        "accumulation": "variances are those of a batch",
        "permutation": "the two views of a sample are known by their place in the batch",
    }

    def __init__(self, invariance: Strength = 25.0, variance: Strength = 25.0, covariance: Strength = 1.0) -> None:
        super().__init__()
        self.invariance = checked("invariance", invariance, low=0.0)
        self.variance = checked("variance", variance, low=0.0)
        self.covariance = checked("covariance", covariance, low=0.0)

    def loss_function(self, loss: Loss) -> Loss:
        return no_loss

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        one, other = two_views(output, self.key)
        variance = variance_hinge(one) + variance_hinge(other)
        covariance = covariance_penalty(one) + covariance_penalty(other)
        return {
            "invariance": Term(F.mse_loss(one, other), self.invariance, per_sample=False),
            "variance": Term(variance, self.variance, per_sample=False),
            "covariance": Term(covariance, self.covariance, per_sample=False),
        }
