"""Class-relation distillation: novel classes are discovered without forgetting how they relate to the known ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.passes import frozen_copy
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.distillation import distillation_losses


def transfer_weights(scores: Tensor, known: int, novel: Tensor, temperature: float = 4.0) -> Tensor:
    """P(known | x) of every novel sample over its mean (Gu, Zhang, Xu, He 2023, arXiv 2307.09158).

    scores: (B, C), of all classes, the first `known` of which are known; novel: (B,), 1.0 for novel samples and 0.0 for
    others; temperature: of the softmax. Returns (B,), 0 for the others, of mean 1 over the novel ones.

    >>> transfer_weights(torch.zeros(2, 4), known=1, novel=torch.tensor([1.0, 0.0]))
    tensor([1., 0.])
    """
    share = F.softmax(scores / temperature, dim=1)[:, :known].sum(1) * novel
    return share * novel.sum() / share.sum().clamp_min(torch.finfo(share.dtype).tiny)


class ClassRelationKD(Method):
    """Discover novel classes while the network keeps saying how their samples relate to the known ones.

    Use it where a classifier of known classes is to find classes in unlabelled data: give it outputs for the novel
    classes after those of the known ones, prepare the recipe with the trained classifier, of which a frozen copy is
    taken, and give novel samples pseudo-labels among the novel outputs (a balanced assignment, say), hard or as
    probabilities. A sample is novel where its target, or most of it, is no known class. Not where novel classes have
    nothing in common with known ones.

        loss = task + strength (1/n) sum_novel w_i T^2 CE(softmax(z_old / T), softmax(z[:known] / T))
        w_i = P(known | x_i) / mean P(known | x),   P = softmax(z / T)

    known: how many of the first outputs are known classes; strength: at least 0, 0.1; temperature: T, positive, 4. The
    weights are part of the graph: the network learns what to transfer.

    Cost: a forward pass of the frozen copy.
    Reference: Gu, Zhang, Xu, He 2023, arXiv 2307.09158. The weights' temperature is that of the official code.

    >>> recipe = tikhon.Recipe(tikhon.ClassRelationKD(known=6))
    """

    card = Card(
        title="Class-relation Knowledge Distillation for Novel Class Discovery",
        authors="Gu, Zhang, Xu, He",
        year=2023,
        arxiv="2307.09158",
        problems=("forgetting",),
        formula=r"L = \mathrm{task} + \alpha\,\tfrac1n\sum_i w_i T^2\,\mathrm{CE}(p^{old}_i, q_i)",
        claim="Discovers novel classes better than the state of the art, on CIFAR-100 and fine-grained data sets.",
        helps="Novel classes that resemble known ones.",
        hurts="Novel classes unlike all known ones.",
        cost="A forward pass of a frozen copy.",
        example="known=2",
    )
    slots = {"prepare": "replace"}
    needs = frozenset({"classes"})
    exempt = {"accumulation": "the weights are relative to the mean over the novel samples of a batch"}

    def __init__(self, known: int, strength: Strength = 0.1, temperature: Strength = 4.0) -> None:
        super().__init__()
        if isinstance(known, bool) or not isinstance(known, int) or known < 1:
            raise TikhonError(f"known must be a positive integer, the number of known classes, not {known!r}.")
        self.known = known
        self.strength = checked("strength", strength, low=0.0)
        self.temperature = checked("temperature", temperature, low=1e-3)
        self.frozen: nn.Module | None = None

    def prepare(self, model: nn.Module) -> None:
        self.frozen = frozen_copy(model)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        if output.ndim != 2 or output.shape[1] <= self.known:
            raise TikhonError(
                f"{self.key} needs scores (B, C) of more than known={self.known} classes, not {tuple(output.shape)}: "
                "the outputs of novel classes come after those of known ones."
            )
        assert self.frozen is not None
        with torch.no_grad():
            old = step.output(self.frozen, step.inputs)
        labels = target.dominant
        labels = labels.argmax(1) if labels.is_floating_point() else labels
        novel = ((labels < 0) | (labels >= self.known)).to(output.dtype)
        temperature = step.value(self.temperature)
        losses = distillation_losses(output[:, : self.known], old[:, : self.known], temperature)
        weights = transfer_weights(output, self.known, novel, temperature)
        mean = (weights * losses).sum() / novel.sum().clamp_min(1.0)
        return {"relation": Term(mean, self.strength, per_sample=False)}
