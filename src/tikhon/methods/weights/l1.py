"""L1: a penalty on the absolute values of the weights."""

from __future__ import annotations

import torch
from torch import nn

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Where
from tikhon.core.penalties import penalty
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Terms
from tikhon.math.norms import absolute_norm


class L1(Method):
    """Pull weights towards zero by the same amount, whatever their size.

    Use it where few of many inputs matter. The penalty enters the gradient as strength * sign(w), with sign(0) = 0:
    weights that do not matter shrink until they jitter around zero, within about the learning rate times the strength
    of it, but they do **not** become exactly zero. For exact zeros use a method with a proximal step (family
    "sparsity").

        loss = task + strength * sum |w|

    strength: at least 0; where: which parameters, the weights by default, so neither biases nor norms.

    Cost: one pass over the selected parameters a step. Reference: Tibshirani 1996.

    >>> recipe = tikhon.Recipe(tikhon.L1(1e-4))
    """

    card = Card(
        title="Regression Shrinkage and Selection via the Lasso",
        authors="Tibshirani",
        year=1996,
        arxiv="",
        problems=("overfitting",),
        formula=r"L = \mathrm{task} + \lambda\lVert w\rVert_1",
        claim="Shrinks some coefficients and sets others to 0, so that it keeps what is good of subset selection and "
        "of ridge regression. By subgradients the others come near 0 only.",
        helps="Few relevant inputs among many.",
        hurts="Groups of correlated inputs, of which it keeps one at random; wherever exact zeros are the point.",
        cost="One pass over the selected parameters a step.",
    )
    elementwise = True

    def __init__(self, strength: Strength = 1e-5, where: Where = "weights") -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.where = where

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        chosen = step.select(self.where)
        return {"norm": penalty(chosen, self.strength, absolute_norm, gradient=torch._foreach_sign)}
