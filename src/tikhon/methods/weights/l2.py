"""L2: a penalty on the squared length of the weights."""

from __future__ import annotations

from torch import nn

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Where
from tikhon.core.penalties import penalty
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Terms
from tikhon.math.norms import half_squared_norm


class L2(Method):
    """Pull weights towards zero in proportion to their size.

    Use it as the first remedy against over-fitting. With SGD it equals the optimizer's own weight decay of the same
    strength; with Adam it does not: there the penalty passes through the adaptive scaling (Loshchilov and Hutter 2019).
    Unlike weight decay it follows a schedule and acts on effective, re-parameterised weights.

        loss = task + strength * (1/2) sum w^2

    strength: at least 0; where: which parameters, the weights by default, so neither biases nor norms.

    Cost: one pass over the selected parameters a step. Reference: Krogh and Hertz 1991.

    >>> recipe = tikhon.Recipe(tikhon.L2(1e-4))
    """

    card = Card(
        title="A Simple Weight Decay Can Improve Generalization",
        authors="Krogh, Hertz",
        year=1991,
        arxiv="",
        problems=("overfitting",),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{2}\lVert w\rVert_2^2",
        claim="Suppresses irrelevant components of the weights and some of the effect of static noise on the targets.",
        helps="Small data sets, ill-conditioned problems.",
        hurts="Under-fitting models; scale-invariant layers, where it only changes the effective learning rate.",
        cost="One pass over the selected parameters a step.",
    )
    elementwise = True

    def __init__(self, strength: Strength = 1e-4, where: Where = "weights") -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.where = where

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        # Of half the square of w the gradient is w itself.
        return {"norm": penalty(step.select(self.where), self.strength, half_squared_norm, gradient=list)}
