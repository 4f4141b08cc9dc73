"""Jacobian penalty: outputs that change little when the inputs do, whatever the labels are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.sensitivity import differentiable, squared_jacobian
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms


class JacobianPenalty(Method):
    """Penalise the Jacobian of the network's scores with respect to its input.

    Use it to widen the margins around samples, against noise and attacks, at little loss of accuracy; beside
    adversarial training too. Unlike `InputGradientPenalty` it goes on where the labels are fitted, and needs none.

        loss = task + strength / 2 ||d z / d x||_F^2,   ||J||_F^2 = K E_v ||J^T v||^2,  v uniform on the unit sphere

    z: the model's output of K numbers a sample, for classes their scores before the softmax. strength: at least 0, 0.01
    in the paper; projections: how many random directions v a sample estimate the norm; None takes all K unit vectors
    and is exact. Batch norm mixes samples, and the penalty then counts their influence on each other too. It needs
    second derivatives, which fused attention and `torch.compile` with its default backend do not have.

    Cost: one backward pass a projection, and the backward pass through it.
    Reference: Hoffman, Roberts, Yaida 2019, arXiv 1908.02729.

    >>> recipe = tikhon.Recipe(tikhon.JacobianPenalty(strength=0.01))
    """

    card = Card(
        title="Robust Learning with Jacobian Regularization",
        authors="Hoffman, Roberts, Yaida",
        year=2019,
        arxiv="1908.02729",
        problems=("robustness", "overfitting"),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{2}\lVert\partial z/\partial x\rVert_F^2",
        claim="Larger decision cells, and more accuracy under noise and attack, at no loss of accuracy on clean data.",
        helps="Noise and moderate attacks; few training samples.",
        hurts="Strong attacks are resisted less than by adversarial training.",
        cost="One backward pass a projection, and the backward pass through it.",
    )
    slots = {"batch": "mix"}  # behind whatever makes new inputs
    exempt = {
        "accumulation": "each micro-batch draws projections of its own",
        "permutation": "projections belong to the rows of a batch",
        "shards": "backward goes through the network twice, and after the first time the weights are let go",
    }

    def __init__(self, strength: Strength = 0.01, projections: int | None = 1) -> None:
        super().__init__()
        whole = isinstance(projections, int) and not isinstance(projections, bool)
        if projections is not None and not (whole and projections >= 1):
            raise TikhonError(f"projections must be a positive integer, or None for all, not {projections!r}.")
        self.strength = checked("strength", strength, low=0.0)
        self.projections = projections

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        if step.value(self.strength) == 0.0:
            return inputs, target
        return differentiable(inputs, self.key), target

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        numbers = output[0].numel()
        if self.projections is None:
            probes = torch.eye(numbers, dtype=output.dtype, device=output.device)[:, None]
        else:
            shape, generator = (self.projections, len(output), numbers), step.generator(output.device)
            draws = torch.randn(shape, generator=generator, dtype=output.dtype, device=output.device)
            probes = draws / draws.norm(dim=2, keepdim=True).clamp_min(torch.finfo(draws.dtype).tiny)
        probes = numbers**0.5 * probes.expand(-1, len(output), -1).reshape(-1, *output.shape)
        return {"jacobian": Term(0.5 * squared_jacobian(output, step.inputs, probes), self.strength)}
