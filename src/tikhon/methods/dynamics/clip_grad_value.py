"""Clipping of the gradient's entries: none is larger than a bound, whatever the others are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked


class ClipGradValue(Method):
    """Cut every entry of the gradient to an interval around zero.

    Use it where single entries of the gradient explode and the rest should go on learning, as rare tokens and outliers
    of regression do; where the whole gradient explodes, `ClipGradNorm` keeps its direction, which this does not. As
    that, it acts on the finished gradient of the optimizer step.

        g_i <- min(max(g_i, -max_value), max_value)

    max_value: at least 0, in units of the gradient; recurrent networks have been trained with 1 to 100; where: which
    parameters, all by default.

    Cost: one pass over the gradients.
    Reference: Mikolov 2012 (Statistical Language Models Based on Neural Networks, thesis, section 3.2); the text in
    general use, Pascanu, Mikolov, Bengio 2012, arXiv 1211.5063, discusses it beside the clipping of norms.

    >>> recipe = tikhon.Recipe(tikhon.ClipGradValue(max_value=1.0))
    """

    card = Card(
        title="Statistical Language Models Based on Neural Networks",
        authors="Mikolov",
        year=2012,
        arxiv="",
        problems=("stability",),
        formula=r"g_i \leftarrow \min(\max(g_i, -c), c)",
        claim="Cutting large entries of the gradient keeps recurrent networks from diverging.",
        helps="Gradients of which a few entries explode.",
        hurts="A bound below usual entries: the direction of the step is then that of signs.",
        cost="One pass over the gradients.",
        neutral="max_value=1e30",
    )
    slots = {"gradients": "clip"}

    def __init__(self, max_value: Strength = 1.0, where: Where = "all") -> None:
        super().__init__()
        self.max_value = checked("max_value", max_value, low=0.0)
        self.where = where

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        bound = step.value(self.max_value)
        gradients = [gradient for one in parameters if (gradient := one.leaf.grad) is not None]
        if gradients:
            torch._foreach_clamp_min_(gradients, -bound)
            torch._foreach_clamp_max_(gradients, bound)
