"""DropConnect: set random weights, not features, to zero while training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core.card import Card
from tikhon.core.export import merge_parametrization
from tikhon.core.method import Method
from tikhon.core.parameters import Where, check_parametrizable, select
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.random import dropped


class Disconnected(nn.Module):
    """The parametrization: one for all weights, which differ in their draws alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rate: float | Tensor = 0.0

    def forward(self, weight: Tensor) -> Tensor:
        return dropped(weight, self.rate) if self.training else weight


class DropConnect(Method):
    """Set random weights to zero while training, and scale the others up.

    Use it in fully connected layers that fit their training data exactly, with a lower learning rate than without it:
    all samples of a batch share a mask, and what they do not average out moves the weights. Not in narrow layers, nor
    for weights that others share.

        W <- M W / (1 - p),   M_ij ~ Bernoulli(1 - p) for every weight

    p: the share of weights dropped, in [0, 1]; where: which parameters, the weights of every `nn.Linear` by default. A
    mask is that of a pass; the paper draws one for each sample, which costs as many copies of the weights. Evaluation
    uses the mean weights, which are the trained ones, where the paper samples from a normal approximation of what comes
    out of the layer; `export` merges them. Penalties see the mean weights as well.

    Cost: one draw a weight and pass. Masks come from torch's global generator, as those of `nn.Dropout` do.
    Reference: Wan, Zeiler, Zhang, LeCun, Fergus 2013, International Conference on Machine Learning.

    >>> recipe = tikhon.Recipe(tikhon.DropConnect(p=0.5))
    """

    card = Card(
        title="Regularization of Neural Networks using DropConnect",
        authors="Wan, Zeiler, Zhang, LeCun, Fergus",
        year=2013,
        arxiv="",
        problems=("overfitting",),
        formula=r"W \leftarrow M \odot W / (1-p),\quad M_{ij} \sim \mathrm{Bernoulli}(1-p)",
        claim="Regularises large fully connected layers, often better than dropout, on small images.",
        helps="Wide fully connected layers, few samples, long training.",
        hurts="Narrow layers, short training.",
        cost="One draw a weight.",
        neutral="p=0",
    )
    slots = {"prepare": "parametrize", "batch": "augment", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights"})
    exempt = {
        "accumulation": "every micro-batch draws masks of its own",
        "reproducible": "masks come from the global generator, as those of nn.Dropout do",
    }

    def __init__(self, p: Strength = 0.5, where: Where = nn.Linear) -> None:
        super().__init__()
        self.p = checked("p", p, low=0.0, high=1.0)
        self.where = where
        self._mask = Disconnected()

    def check(self, model: nn.Module) -> None:
        check_parametrizable(model, select(model, self.where), self.key)

    def prepare(self, model: nn.Module) -> None:
        for one in select(model, self.where):
            parametrize.register_parametrization(one.module, one.attribute, self._mask)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._mask.rate = step.graph_value(self.p, target.value.device)
        return inputs, target

    def export(self, model: nn.Module) -> nn.Module:
        merge_parametrization(model, Disconnected)
        return model
