"""Mixed Barlow Twins: features learned without labels, from two views of every sample and from mixed samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tikhon.core.batches import first_tensor, map_tensors, mix_inputs
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import Loss, no_loss
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.core.views import two_views
from tikhon.math.decorrelation import barlow_twins, standardised
from tikhon.math.precision import at_least_float32
from tikhon.math.random import beta


def mixing_gap(one: Tensor, other: Tensor, mixed: Tensor, permutation: Tensor, share: float) -> Tensor:
    """(1/2) (||C^MA - T^A||^2 + ||C^MB - T^B||^2), with C^MA = mixed^T one / B (Bandara et al. 2023, arXiv 2312.02151).

        T^A = share one^T one / B + (1 - share) other[permutation]^T one / B,   T^B alike with other on the right

    one, other, mixed: (B, D), standardised features of both views and of share x_A + (1 - share) x_B[permutation];
    permutation: (B,). Returns a scalar, at least 0; 0 where `mixed` is share one + (1 - share) other[permutation]. What
    is standardised anew has the variance 1 that a mixture lacks, so linear features too keep a part of it in training.
    """
    unmixed = mixed - torch.lerp(other[permutation], one, share)
    return 0.5 * ((unmixed.T @ one / len(one)).square().sum() + (unmixed.T @ other / len(one)).square().sum())


class MixedBarlowTwins(Method):
    """Learn features without labels: alike for two views of a sample, decorrelated, and mixed where samples are.

    Use it to pretrain a network on data without labels, in long training above all, where the features of plain Barlow
    Twins begin to overfit. A batch is two views of the same samples, one after the other, and needs no target:
    `recipe.loss(torch.cat([view(x), view(x)]))`, where `view` is your random augmentation. The output is what the
    projector gives; throw the projector away afterwards. Not where no augmentation is known that keeps the meaning, nor
    with batches of less than some dozens of samples.

        loss = sum_i (1 - C_ii)^2 + r sum_{i != j} C_ij^2 + m r gap,   C = z_A^T z_B / B
        gap = (1/2) (||C^MA - T^A||^2 + ||C^MB - T^B||^2),   x_M = l x_A + (1 - l) x_B[permutation],  l ~ Beta(a, a)

    z: features standardised over the batch; C^MA and C^MB: the correlations of the mixed samples' features with those
    of either view; T^A, T^B: what they would be if features mixed as their inputs do.

    redundancy: r, at least 0, 0.005 or 1/D; mixing: m, at least 0, 1 to 5 in the paper; 0 is plain Barlow Twins; alpha:
    a of the share's distribution, positive, 1 in the paper. The official code for small images has no 1/2 in the gap
    and divides variances by B - 1; its scale of 4 is mixing=8 here. It sends views through the network in passes of
    their own, so that batch norm sees one at a time; here both are one pass, and the mixed samples a second one.

    Cost: two views are twice the batch; the mixed samples are a pass on half as many rows.
    Reference: Bandara, De Melo, Patel 2023, arXiv 2312.02151; Barlow Twins are Zbontar et al. 2021, arXiv 2103.03230.

    >>> recipe = tikhon.Recipe(tikhon.MixedBarlowTwins(redundancy=1 / 128))
    >>> model = recipe.prepare(torch.nn.Linear(4, 128))
    >>> _ = recipe.attach(torch.optim.Adam(model.parameters()))
    >>> x = torch.randn(32, 4)
    >>> recipe.loss(torch.cat([x, x + 0.1 * torch.randn(32, 4)])).backward()
    """

    card = Card(
        title="Guarding Barlow Twins Against Overfitting with Mixed Samples",
        authors="Bandara, De Melo, Patel",
        year=2023,
        arxiv="2312.02151",
        problems=("overfitting",),
        formula=r"L = \sum_i(1-C_{ii})^2 + \lambda\sum_{i\ne j}C_{ij}^2"
        r" + \tfrac{m\lambda}{2}\left(\lVert C^{MA}-T^A\rVert^2 + \lVert C^{MB}-T^B\rVert^2\right)",
        claim="Keeps features from overfitting in long training, and is better in k-NN and linear accuracy.",
        helps="Long pretraining without labels, few data, many features.",
        hurts="Short training; data whose augmentations change the meaning; small batches.",
        cost="Two views of every sample, and a pass on their mixture.",
        neutral="",
    )
    breaks = frozenset({"classes", "values"})
    exempt = {
        "neutral": "the loss takes the place of the recipe's",
        "accumulation": "correlations are those of a batch",
        "permutation": "the two views of a sample are known by their place in the batch",
    }

    def __init__(self, redundancy: Strength = 0.005, mixing: Strength = 4.0, alpha: Strength = 1.0) -> None:
        super().__init__()
        self.redundancy = checked("redundancy", redundancy, low=0.0)
        self.mixing = checked("mixing", mixing, low=0.0)
        self.alpha = checked("alpha", alpha, low=1e-6)

    def loss_function(self, loss: Loss) -> Loss:
        return no_loss

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        one, other = map(standardised, two_views(output, self.key))
        invariance, redundancy = barlow_twins(one, other)
        terms = {
            "invariance": Term(invariance, per_sample=False),
            "redundancy": Term(redundancy, self.redundancy, per_sample=False),
        }
        strength = step.value(self.mixing) * step.value(self.redundancy)
        if strength:
            permutation = torch.randperm(len(one), generator=step.generator(output.device), device=output.device)
            share = beta(step.value(self.alpha), step.generator())
            mixed = standardised(at_least_float32(step.forward(self._mixed(step.inputs, permutation, share))))
            terms["mixing"] = Term(mixing_gap(one, other, mixed, permutation, share), strength, per_sample=False)
        return terms

    def _mixed(self, inputs: Any, permutation: Tensor, share: float) -> Any:
        """share x_A + (1 - share) x_B[permutation] of the batch's two halves."""
        rows = len(permutation)
        if len(first_tensor(inputs)) != 2 * rows:
            raise TikhonError(f"{self.key}: {len(first_tensor(inputs))} inputs do not fit {2 * rows} outputs.")
        mixed = mix_inputs(lambda one: torch.lerp(one[rows:][permutation], one[:rows], share), inputs, self.key)
        return map_tensors(lambda one: one[:rows], mixed)  # what cannot be mixed, a mask, is that of the first view
