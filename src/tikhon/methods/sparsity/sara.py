"""SaRA: fine-tune the smallest weights of a pretrained network alone, by updates of low rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Snapshot, Where, freeze_others, select
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32


def nuclear_norm(matrix: Tensor) -> Tensor:
    """The sum of singular values (Hu et al. 2024, arXiv 2409.06633); its gradient is U V^T.

    matrix: (out, in), or with more axes, all but the first taken as one. Returns a scalar, in float32 at least.

    >>> nuclear_norm(torch.diag(torch.tensor([3.0, -4.0])))
    tensor(7.)
    """
    matrix = at_least_float32(matrix).flatten(1)
    tall = matrix if len(matrix) >= matrix.shape[1] else matrix.T  # half the time
    singular: Tensor = torch.linalg.svdvals(tall)
    return singular.sum()


def magnitude_below(weights: Sequence[Tensor], share: float) -> float:
    """The magnitude below which `share` of all entries lie, ties apart.

    weights: tensors of any shapes; share: in [0, 1]. Returns infinity for all of them. Looks at values.

    >>> magnitude_below([torch.tensor([1.0, -2.0]), torch.tensor([3.0, -4.0])], 0.5)
    3.0
    """
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    count = round(share * len(magnitudes))
    return math.inf if count >= len(magnitudes) else float(magnitudes.kthvalue(count + 1).values)


class SaRA(Method):
    """Fine-tune only the weights that are nearly zero, and leave the others to the bit.

    Use it to teach a pretrained network something new and keep what it knows: its smallest weights, 10 to 20% of a
    diffusion model, do next to nothing and are free to learn. Half-way, those that have outgrown the threshold stop
    and the rest goes on. Not for a task far from the old one, nor with small networks, which waste no weight.

        train {i : |w_i| < threshold},   loss = task + strength ||W * M||_*,   M: the mask of what trains

    threshold: on the pretrained weights, 2e-3 for Stable Diffusion; share: in place of a threshold, how many of all
    selected weights train, the smallest; strength: at least 0, of the nuclear norm, which is taken of one matrix a
    step, drawn at random (a convolution counts as a matrix; the official code takes linear layers of more than 64 rows
    and columns); reselect: after which part of training to select anew among what trains, None for never; where: the
    parameters to choose among; freeze: whether all others stop training until export.

    The selection is made when the recipe is prepared: load the pretrained weights before.

    Cost: a copy of the selected weights, a mask, and an SVD of one matrix a step. Gradients are computed for all
    weights; the official code saves memory by keeping those of the selected alone.
    Reference: Hu, Zhang, Yi, Huang, Wang, Ma 2024, arXiv 2409.06633.

    >>> recipe = tikhon.Recipe(tikhon.SaRA(share=0.2))
    """

    card = Card(
        title="SaRA: High-Efficient Diffusion Model Fine-tuning with Progressive Sparse Low-Rank Adaptation",
        authors="Hu, Zhang, Yi, Huang, Wang, Ma",
        year=2024,
        arxiv="2409.06633",
        problems=("forgetting", "overfitting"),
        formula=r"\min_{P}\ \mathrm{task}(P_0 + P\odot M) + \lambda\lVert P\odot M\rVert_*,\quad M = 1[|P_0|<\theta]",
        claim="Keeps the generalisation of Stable Diffusion better than LoRA while it adapts.",
        helps="Large pretrained networks and tasks near the old one.",
        hurts="Small networks; tasks far from the old one.",
        cost="A copy of the selected weights, a mask, an SVD of one matrix a step.",
        neutral="share=1.0, strength=0.0",
        example="share=0.2",
    )
    slots = {"gradients": "project", "after_step": "restore", "export": "merge", "prepare": "gate"}
    needs = frozenset({"plain weights", "length"})

    def __init__(
        self,
        threshold: float = 2e-3,
        share: float | None = None,
        strength: Strength = 5e-4,
        reselect: float | None = 0.5,
        where: Where = "all",
        freeze: bool = True,
    ) -> None:
        super().__init__()
        checked("threshold", threshold, low=0.0)
        for name, value in (("share", share), ("reselect", reselect)):
            if value is not None:
                checked(name, value, low=0.0, high=1.0)
        self.threshold, self.share, self.reselect = threshold, share, reselect
        self.strength = checked("strength", strength, low=0.0)
        self.where, self.freeze = where, freeze
        self.trained = Snapshot()  # 1 for entries that train and 0 for others, as numbers: these multiply fastest
        self.kept = Snapshot()  # the values of those that do not, and 0 for others
        self.begun_anew = False
        self._stopped: list[nn.Parameter] = []
        if reselect is None:
            self.needs = self.needs - {"length"}

    def check(self, model: nn.Module) -> None:
        leaves = [one.leaf.detach() for one in select(model, self.where)]
        threshold = self._threshold(leaves)
        if not any(bool((leaf.abs() < threshold).any()) for leaf in leaves):
            raise TikhonError(f"{self.key}: no weight is below {threshold:g}. Raise threshold, or share=.")

    def _threshold(self, leaves: Sequence[Tensor]) -> float:
        return self.threshold if self.share is None else magnitude_below(leaves, self.share)

    def prepare(self, model: nn.Module) -> None:
        chosen = select(model, self.where)
        self.threshold = self._threshold([one.leaf for one in chosen])
        self._select(chosen)
        if self.freeze:
            self._stopped = freeze_others(model, [one.leaf for one in chosen])

    def _select(self, chosen: Sequence[Selected]) -> None:
        leaves = {one.name: one.leaf.detach() for one in chosen}
        self.trained.take({name: (leaf.abs() < self.threshold).to(leaf.dtype) for name, leaf in leaves.items()})
        self.kept.take({name: leaf * (leaf.abs() >= self.threshold) for name, leaf in leaves.items()})

    def _known(self, chosen: Sequence[Selected]) -> list[Selected]:
        """Those that were there to choose among: what other methods add trains as it would."""
        return [one for one in chosen if one.name in self.trained.tensors]

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        matrices = [one for one in self._known(step.select(self.where)) if one.leaf.ndim > 1]
        if step.value(self.strength) == 0.0 or not matrices:
            return {}
        one = matrices[int(torch.randint(len(matrices), (), generator=step.generator()))]
        (mask,) = self.trained.matching([one])
        return {"rank": Term(nuclear_norm(one.leaf * mask), self.strength, per_sample=False)}

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        if self.reselect is not None and not self.begun_anew and step.progress >= self.reselect:
            self._select(self._known(step.select(self.where)))
            self.begun_anew = True
        known = self._known(parameters)
        gradients = [one.leaf.grad for one in known if one.leaf.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, self.trained.matching(known))

    def after_step(self, model: nn.Module, step: Step) -> None:
        # without a gradient an optimizer's weight decay and momentum still move a weight
        chosen = self._known(step.select(self.where))
        leaves: list[Tensor] = [one.leaf for one in chosen]
        if leaves:
            torch._foreach_mul_(leaves, self.trained.matching(chosen))
            torch._foreach_add_(leaves, self.kept.matching(chosen))

    def export(self, model: nn.Module) -> nn.Module:
        for parameter in self._stopped:
            parameter.requires_grad_()
        return model

    def get_extra_state(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "begun_anew": self.begun_anew}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.threshold, self.begun_anew = state["threshold"], state["begun_anew"]
