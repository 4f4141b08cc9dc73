"""Early-learning regularisation: keep the network close to what it believed before it began to memorise."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32

CLAMP = 1e-4  # as published: it bounds the term, and stops its gradient where the network is certain


def clamped(probabilities: Tensor) -> Tensor:
    """Probabilities kept in [1e-4, 1 - 1e-4], in float32 at least: in half precision the upper bound would be 1."""
    return at_least_float32(probabilities).clamp(CLAMP, 1.0 - CLAMP)


def elr_penalty(probabilities: Tensor, memory: Tensor) -> Tensor:
    """log(1 - <p, t>) of every sample (Liu et al. 2020, arXiv 2007.00151, eq. 6).

    probabilities: (B, K), kept in [1e-4, 1 - 1e-4] here; memory: (B, K), rows sum to at most 1. Returns (B,), in
    float32 at least, between log(1e-4) and 0: the more the network agrees with its memory, the lower.

    >>> elr_penalty(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.8, 0.2]]))
    tensor([-0.6931])
    """
    agreement = (clamped(probabilities) * memory).sum(1)
    return torch.log1p(-agreement)


def updated_memory(memory: Tensor, probabilities: Tensor, momentum: float) -> Tensor:
    """momentum * t + (1 - momentum) * p (eq. 9): the memory moves towards the prediction of the step in hand.

    memory, probabilities: (B, K). p is clamped and made to sum to 1 again, as in the official code.
    """
    kept = clamped(probabilities)
    return momentum * memory + (1.0 - momentum) * kept / kept.sum(1, keepdim=True)


class ELR(Method):
    """Keep predictions close to a running average of themselves, so that wrong labels are not memorised.

    Use it where labels are wrong and training is long enough to memorise them. Not for clean labels: there it only
    slows the fit. Under mixing the memory holds predictions on the clean inputs, which cost one extra forward pass.

        t_i <- b t_i + (1 - b) p_i,   loss = task + strength * mean_i log(1 - <p_i, t_i>)

    strength: weight of the term, at least 0; 3 on CIFAR-10 (the default), 7 on CIFAR-100; momentum: b, in [0, 1).

    Cost: a memory of samples x classes, one inner product a sample. Needs sample ids.
    Reference: Liu, Niles-Weed, Razavian, Fernandez-Granda 2020, arXiv 2007.00151.

    >>> recipe = tikhon.Recipe(tikhon.ELR(strength=3.0, momentum=0.7))
    """

    card = Card(
        title="Early-Learning Regularization Prevents Memorization of Noisy Labels",
        authors="Liu, Niles-Weed, Razavian, Fernandez-Granda",
        year=2020,
        arxiv="2007.00151",
        problems=("noisy-labels", "overfitting"),
        formula=r"L = \mathrm{CE} + \lambda\,\tfrac1n\sum_i \log(1-\langle p_i, t_i\rangle)",
        claim="Prevents the memorisation of false labels.",
        helps="Wrong labels, training to the end.",
        hurts="Clean labels with few epochs.",
        cost="A memory of samples x classes; with mixing one extra forward pass.",
    )
    needs = frozenset({"ids", "classes"})

    def __init__(self, strength: Strength = 3.0, momentum: Strength = 0.7) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.momentum = checked("momentum", momentum, low=0.0, high=1.0)
        self.memory = PerSampleMemory()

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        assert target.ids is not None
        probabilities = step.loss.probabilities(step.clean(output))
        old = self.memory.read(target.ids, like=clamped(probabilities))
        self.memory.write(target.ids, updated_memory(old, probabilities, step.value(self.momentum)))

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        probabilities = step.loss.probabilities(output)
        return {"agreement": Term(elr_penalty(probabilities, target.lookup(self.memory.read)), self.strength)}
