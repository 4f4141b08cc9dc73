"""Clipping of the gradient's norm: a step never goes further than a gradient of bounded length would take it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils import clip_grad_norm_

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked


class ClipGradNorm(Method):
    """Scale the whole gradient down where its norm exceeds a bound.

    Use it against exploding gradients: recurrent networks, transformers, large learning rates, rare huge losses. It
    acts after everything else in the recipe that changes gradients but noise, and on the finished gradient of the
    optimizer step: all micro-batches together, penalties included, unscaled where a scaler is used. Not against slow
    training: a bound that always acts is a smaller learning rate, and optimizers that normalise steps hide it.

        g <- g min(1, max_norm / ||g||),   the norm over all selected parameters together

    max_norm: at least 0, in units of the gradient; the paper takes half to ten times the norm that is usual in the
    run; where: which parameters, all by default. With sharded parameters the norm is that of the whole gradient.

    Cost: one pass over the gradients. Reference: Pascanu, Mikolov, Bengio 2012, arXiv 1211.5063, algorithm 1.

    >>> recipe = tikhon.Recipe(tikhon.ClipGradNorm(max_norm=1.0))
    """

    card = Card(
        title="On the difficulty of training Recurrent Neural Networks",
        authors="Pascanu, Mikolov, Bengio",
        year=2012,
        arxiv="1211.5063",
        problems=("stability",),
        formula=r"g \leftarrow g \min(1, c/\lVert g\rVert_2)",
        claim="Clipping the norm keeps the steep walls of recurrent networks' losses from throwing training off.",
        helps="Exploding gradients: recurrent networks, transformers, large learning rates.",
        hurts="A bound below the usual norm: every step is then of one length.",
        cost="One pass over the gradients.",
        neutral="max_norm=1e30",
    )
    slots = {"gradients": "clip"}

    def __init__(self, max_norm: Strength = 1.0, where: Where = "all") -> None:
        super().__init__()
        self.max_norm = checked("max_norm", max_norm, low=0.0)
        self.where = where

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        bound = step.value(self.max_norm)
        gradients = [gradient for one in parameters if (gradient := one.leaf.grad) is not None]
        if not gradients or not all(gradient.is_cpu for gradient in gradients):
            clip_grad_norm_([one.leaf for one in parameters], bound)
            return
        # As torch computes it, which sorts by device and precision first, and takes a third of its time for that.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (bound / (norm + 1e-6)).clamp_max(1.0))
