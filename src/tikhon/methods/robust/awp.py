"""AWP: adversarial training that is flat in the weights too, by attacking them as well."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Where
from tikhon.core.shards import whole
from tikhon.core.step import Inner, Step
from tikhon.core.strength import Strength, checked
from tikhon.math.ascent import relative_ascent_offsets


class AWP(Method):
    """Take the gradient where every layer has been moved a small share of its norm against the loss.

    Use it together with adversarial training (`AdversarialTraining`, `TRADES`), whose robustness over-fits: the
    attacked inputs are found once, the weights are attacked on them. Alone it is a layer-wise relative of SAM, with
    which it cannot be combined. Often it begins after some epochs: `tikhon.During(..., begin=0.1)`. Weights return
    exactly, by copy, when backward ends.

        v_l = gamma ||w_l|| g_l / ||g_l||  for every layer l,   update with the gradient of loss(w + v)

    gamma: share of a layer's norm, at least 0; 0.01 with adversarial training, 0.005 with TRADES; where: which
    parameters, by default those of two or more dimensions. One step of ascent, as in the paper's experiments.

    Cost: a second forward and backward pass, a copy of the weights. Under micro-batches each has its own perturbation.
    Reference: Wu, Xia, Wang 2020, arXiv 2004.05884.

    >>> attack = tikhon.AdversarialTraining(radius=8 / 255, valid=(0.0, 1.0))
    >>> recipe = tikhon.Recipe(attack, tikhon.AWP())
    """

    card = Card(
        title="Adversarial Weight Perturbation Helps Robust Generalization",
        authors="Wu, Xia, Wang",
        year=2020,
        arxiv="2004.05884",
        problems=("robustness", "overfitting"),
        formula=r"\min_w \max_{\lVert v_l\rVert\le\gamma\lVert w_l\rVert} "
        r"\tfrac1n\sum_i \max_{\lVert x'_i-x_i\rVert\le\epsilon} \ell(f_{w+v}(x'_i), y_i)",
        claim="A flatter loss in the weights, and with it a smaller gap between robust training and test accuracy.",
        helps="Adversarial training that over-fits.",
        hurts="Budgets counted in passes; networks that under-fit already.",
        cost="A second forward and backward pass.",
        neutral="gamma=0",
    )
    exempt = {"accumulation": "every micro-batch has a perturbation of its own"}

    def __init__(self, gamma: Strength = 0.01, where: Where = "weights") -> None:
        super().__init__()
        self.gamma = checked("gamma", gamma, low=0.0)
        self.where = where

    def around(self, inner: Inner, step: Step) -> Tensor:
        loss = inner()
        gamma = step.value(self.gamma)
        if gamma == 0.0:
            return loss
        chosen, gradients = step.gradients(loss, self.where)
        weights = [whole(one.leaf.detach()) for one in chosen]
        step.perturb([one.leaf for one in chosen], relative_ascent_offsets(weights, gradients, gamma))
        return inner()
