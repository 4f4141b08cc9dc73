"""Unlearning by repulsion: train on what may stay, and away from the weights that know best what must go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, Where, select
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Term, Terms
from tikhon.math.norms import half_squared_norm

Form = Literal["inverse", "exponential", "negative"]

SMALLEST = 1e-12
"""Squared distances count as at least this, so that weights which have not moved yet do not give 1 / 0."""


def repulsion(
    weights: Sequence[Tensor], adapted: Sequence[Tensor], form: Form = "inverse", rate: float = 1.0
) -> Tensor:
    """A penalty that falls as weights leave the adapted ones (Tiwary et al. 2023, arXiv 2309.14054).

        inverse: 1 / d,   exponential: exp(-rate d),   negative: -d,   d = sum_i (theta_i - theta_A,i)^2

    weights, adapted: tensors of equal shapes; rate: at least 0, of the exponential form. Returns a scalar. "inverse"
    and "exponential" are positive and vanish far away; "negative" has no lower bound.

    >>> repulsion([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 0.0])])
    tensor(0.2500)
    """
    distance = 2.0 * half_squared_norm(torch._foreach_sub(list(weights), list(adapted)))
    if form == "inverse":
        return 1.0 / distance.clamp_min(SMALLEST)
    return torch.exp(-rate * distance) if form == "exponential" else -distance


class RepulsionUnlearn(Method):
    """Make a model forget by keeping its weights away from those of a copy that was adapted to what is to go.

    Use it where a trained model, a generator above all, must lose a class or a feature and the training data are not at
    hand. First adapt a copy to samples of what must go, with `tk.EWC()` so that it forgets nothing
    else; then train the original on samples of what may stay, with this method. Samples that the model draws and
    somebody sorts will do for both. Not where nothing tells whether the model still knows: distance is no proof.

        loss = task + strength * r(d),   d = ||theta - theta_A||^2,   r: 1 / d, exp(-rate d) or -d

    adapted: the state of the adapted copy, its `state_dict()`, or its parameters by name; strength: gamma, at least 0;
    form: "inverse", "exponential" or "negative", which grows without bound and is to be stopped early; rate: of the
    exponential form, at least 0; where: which parameters. Search on the scale of d_0, the distance of the original from
    the adapted weights: strengths of some d_0, rates of some 1 / d_0. The official code takes the mean of the squared
    differences of each tensor where this takes their sum, and adds up several adapted copies.

    Cost: a copy of the selected parameters, and one pass over them a step.
    Reference: Tiwary, Guha, Panda, Prathosh 2023, arXiv 2309.14054.

    >>> adapted = {"weight": torch.zeros(3, 8), "bias": torch.zeros(3)}  # adapted_model.state_dict()
    >>> recipe = tikhon.Recipe(tikhon.RepulsionUnlearn(adapted, strength=0.1))
    """

    card = Card(
        title="Adapt then Unlearn: Exploring Parameter Space Semantics for Unlearning in Generative Adversarial "
        "Networks",
        authors="Tiwary, Guha, Panda, Prathosh",
        year=2023,
        arxiv="2309.14054",
        problems=("privacy",),
        formula=r"L = \mathrm{task} + \gamma\,r(\lVert\theta-\theta_A\rVert^2),\quad r(d) = 1/d,\ e^{-\alpha d},\ -d",
        claim="Removes classes and features from generators without their training data, and keeps quality.",
        helps="Generators whose samples somebody can sort into what may stay and what must go.",
        hurts="Strengths that throw the weights far from where the model works; a copy adapted without an anchor.",
        cost="A copy of the selected parameters, and one pass over them a step.",
    )
    needs = frozenset({"plain weights"})

    def __init__(
        self,
        adapted: Mapping[str, Tensor],
        strength: Strength = 1.0,
        form: Form = "inverse",
        rate: Strength = 1.0,
        where: Where = "all",
    ) -> None:
        super().__init__()
        if form not in ("inverse", "exponential", "negative"):
            raise TikhonError(f"form is 'inverse', 'exponential' or 'negative', not {form!r}.")
        if not isinstance(adapted, Mapping) or not all(isinstance(one, Tensor) for one in adapted.values()):
            raise TikhonError("adapted must be parameters by name, as adapted_model.state_dict() gives them.")
        self.strength = checked("strength", strength, low=0.0)
        self.rate = checked("rate", rate, low=0.0)
        self.form, self.where = form, where
        self.adapted = Snapshot()
        self.adapted.take(adapted)

    def check(self, model: nn.Module) -> None:
        for one in select(model, self.where):
            other = self.adapted.tensors.get(one.name)
            if other is None or other.shape != one.leaf.shape:
                found = "are none" if other is None else f"have shape {tuple(other.shape)}"
                raise TikhonError(
                    f"{self.key}: the adapted weights of {one.name} {found}; the model's have {tuple(one.leaf.shape)}. "
                    "Adapt a copy of the same model, or leave this out with where=."
                )

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        chosen = step.select(self.where)
        adapted = self.adapted.matching(chosen)
        value = repulsion([one.weight for one in chosen], adapted, self.form, step.value(self.rate))
        return {"repulsion": Term(value, self.strength, per_sample=False)}
