"""Contractive reconstruction: an auto-encoder whose reconstruction moves little learns the score of the data."""

from __future__ import annotations

from collections.abc import Callable
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

Reconstruction = Callable[[Tensor], Tensor]


def score(reconstruct: Reconstruction, x: Tensor, scale: float) -> Tensor:
    """(r(x) - x) / s^2, which tends to the gradient of the data's log density (Alain, Bengio 2012).

    x: (B, ...); scale: s, positive, the square root of the strength that r was trained with, or the standard deviation
    of the noise of a denoising auto-encoder. Returns (B, ...).
    """
    return (reconstruct(x) - x) / scale**2


def log_density_difference(
    reconstruct: Reconstruction, start: Tensor, end: Tensor, scale: float, points: int = 8
) -> Tensor:
    """log p(end) - log p(start) of every sample: the score integrated along the straight line between them.

    start, end: (B, ...); scale: as for `score`; points: of the midpoint rule, at least 1. Returns (B,).
    """
    step = (end - start) / points
    total = start.new_zeros(len(start))
    for number in range(points):
        middle = start + (number + 0.5) * step
        total = total + (score(reconstruct, middle, scale) * step).flatten(1).sum(1)
    return total


def metropolis(reconstruct: Reconstruction, x: Tensor, proposal: Tensor, draws: Tensor, scale: float) -> Tensor:
    """One move of Metropolis-Hastings on the density that the reconstruction implies.

    x, proposal: (B, ...), where the chains are and where they would go by a symmetric rule, such as x plus noise;
    draws: (B,), uniform in [0, 1). Returns (B, ...): the proposal where draw < p(proposal) / p(x), else x.
    """
    moves = draws.log() < log_density_difference(reconstruct, x, proposal, scale)
    return torch.where(moves.reshape(-1, *[1] * (x.ndim - 1)), proposal, x)


class ReconstructionContractive(Method):
    """Keep an auto-encoder's reconstruction from following small changes of its input.

    Use it to make an auto-encoder of any capacity learn the shape of the data's density instead of the identity: what
    it changes of an input points to where data are denser (`score`), and `metropolis` samples that density. A small
    strength is a sharp view that needs many data; a large one blurs. Train with the input as the target.

        loss = ||r(x) - x||^2 + strength ||dr(x)/dx||_F^2,   (r(x) - x) / strength -> grad log p(x)

    strength: s^2, at least 0, 0.01 by default, where s is a length in the units of the data; the base loss averages
    over a sample's entries and so does the penalty; probes: how many random directions estimate the norm, at least 1.
    Batch norm mixes samples, and the penalty then counts their influence on each other too.

    Cost: one backward pass a probe, and the backward pass through it.
    Reference: Alain, Bengio 2012, arXiv 1211.4246.

    >>> method = tikhon.ReconstructionContractive(strength=0.01)
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="What Regularized Auto-Encoders Learn from the Data Generating Distribution",
        authors="Alain, Bengio",
        year=2012,
        arxiv="1211.4246",
        problems=("overfitting",),
        formula=r"L = \mathbb{E}\lVert r(x)-x\rVert^2 + \sigma^2\,\mathbb{E}\lVert\partial r/\partial x\rVert_F^2",
        claim="Contractive and denoising auto-encoders estimate the score of the data's density.",
        helps="Auto-encoders as wide as their input, and a density in few dimensions.",
        hurts="Too large a strength contracts everything to the mean.",
        cost="One backward pass a probe, and the backward pass through it.",
    )
    slots = {"batch": "augment"}
    needs = frozenset({"values"})
    exempt = {
        "accumulation": "each micro-batch draws probes of its own",
        "permutation": "probes belong to the rows of a batch",
        "shards": "backward goes through the network twice, and after the first time the weights are let go",
    }

    def __init__(self, strength: Strength = 0.01, probes: int = 1) -> None:
        super().__init__()
        if isinstance(probes, bool) or not isinstance(probes, int) or probes < 1:
            raise TikhonError(f"probes must be a positive integer, not {probes!r}.")
        self.strength = checked("strength", strength, low=0.0)
        self.probes = probes

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        if step.value(self.strength) == 0.0:
            return inputs, target
        return differentiable(inputs, self.key), target

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        if output.shape != step.inputs.shape:
            raise TikhonError(
                f"{self.key} contracts a reconstruction: an output of shape {tuple(output.shape)} is none of inputs "
                f"{tuple(step.inputs.shape)}."
            )
        shape = (self.probes, *output.shape)
        signs = torch.randint(2, shape, generator=step.generator(output.device), device=output.device)
        norms = squared_jacobian(output, step.inputs, 2.0 * signs.to(output.dtype) - 1.0)
        return {"contraction": Term(norms / output[0].numel(), self.strength)}
