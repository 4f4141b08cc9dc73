"""Elastic net: a penalty on the absolute values and on the squares of the weights."""

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
from tikhon.math.norms import absolute_norm, half_squared_norm


class ElasticNet(Method):
    """Pull weights towards zero by a constant amount and in proportion to their size.

    Use it where few of many inputs matter and the relevant ones are correlated: the L1 part favours few weights, the L2
    part shares them out among inputs that say the same. The L1 part enters the gradient as l1 * sign(w), with
    sign(0) = 0: weights come near zero but do **not** become exactly zero. For exact zeros use a method with a proximal
    step (family "sparsity").

        loss = task + l1 * sum |w| + l2 * (1/2) sum w^2

    l1, l2: at least 0. Scikit-learn's alpha and l1_ratio are l1 = alpha * l1_ratio, l2 = alpha * (1 - l1_ratio), for a
    task loss of (1/2) mean squared error. This is the naive elastic net: the paper multiplies the weights of a linear
    model by 1 + l2 afterwards, which has no counterpart in a network. where: which parameters, the weights by default,
    so neither biases nor norms.

    Cost: two passes over the selected parameters a step. Reference: Zou and Hastie 2005.

    >>> recipe = tikhon.Recipe(tikhon.ElasticNet(l1=1e-5, l2=1e-4))
    """

    card = Card(
        title="Regularization and Variable Selection via the Elastic Net",
        authors="Zou, Hastie",
        year=2005,
        arxiv="",
        problems=("overfitting",),
        formula=r"L = \mathrm{task} + \lambda_1\lVert w\rVert_1 + \tfrac{\lambda_2}{2}\lVert w\rVert_2^2",
        claim="Often outperforms the lasso with a similar sparsity, and keeps or drops correlated inputs together.",
        helps="Few relevant inputs among many, in correlated groups; more inputs than samples.",
        hurts="Under-fitting models; wherever exact zeros are the point.",
        cost="Two passes over the selected parameters a step.",
        neutral="l1=0, l2=0",
    )
    elementwise = True

    def __init__(self, l1: Strength = 1e-5, l2: Strength = 1e-4, where: Where = "weights") -> None:
        super().__init__()
        self.l1 = checked("l1", l1, low=0.0)
        self.l2 = checked("l2", l2, low=0.0)
        self.where = where

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        chosen = step.select(self.where)
        return {
            "l1": penalty(chosen, self.l1, absolute_norm, gradient=torch._foreach_sign),
            "l2": penalty(chosen, self.l2, half_squared_norm, gradient=list),
        }
