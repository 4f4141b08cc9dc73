"""Dropout: set random features to zero while training, so that none relies on the presence of others."""

from __future__ import annotations

from typing import Any

from torch import nn

from tikhon.core.card import Card
from tikhon.core.inserted import At, Inserted, check_places
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.random import dropped


class Dropout(Method):
    """Set random features to zero while training, and scale the others up.

    Use it in wide layers of networks that fit their training data exactly. Not in narrow layers, nor in front of batch
    norm, whose running statistics are then those of dropped features. With schedules, it starts late or fades out.

        h <- m h / (1 - p),   m ~ Bernoulli(1 - p) for every feature of every sample

    p: the share of features dropped, in [0, 1]; at: after which modules, names or globs of the parts of names
    ("layers.*.relu"); before the last `nn.Linear` by default. It is `nn.Dropout` without changing the model's code;
    dropouts of your own act as well. The paper scales the weights by 1 - p at test time instead, which is the same
    network; here evaluation and the exported model are the plain one.

    Cost: one draw a feature and pass. Masks come from torch's global generator, as `nn.Dropout`'s do.
    Reference: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, Journal of Machine Learning Research 15.

    >>> recipe = tikhon.Recipe(tikhon.Dropout(p=0.5))
    """

    card = Card(
        title="Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
        authors="Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov",
        year=2014,
        arxiv="",
        problems=("overfitting",),
        formula=r"h \leftarrow m \odot h / (1-p),\quad m_j \sim \mathrm{Bernoulli}(1-p)",
        claim="Significantly reduces overfitting, and improves networks of vision, speech and text.",
        helps="Wide fully connected layers, few samples, long training.",
        hurts="Narrow layers, short training, batch norm that follows it.",
        cost="One draw a feature.",
        neutral="p=0",
    )
    slots = {"prepare": "gate", "batch": "augment", "export": "merge"}
    exempt = {
        "accumulation": "every micro-batch draws masks of its own",
        "permutation": "masks belong to places in the batch",
        "reproducible": "masks come from the global generator, as those of nn.Dropout do",
    }

    def __init__(self, p: Strength = 0.5, at: At | None = None) -> None:
        super().__init__()
        self.p = checked("p", p, low=0.0, high=1.0)
        self.at = at
        self._layers = Inserted(dropped)

    def check(self, model: nn.Module) -> None:
        check_places(model, self.at, self.key)

    def prepare(self, model: nn.Module) -> None:
        self._layers.place(model, self.at, self.key)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._layers.set(self.p, target, step)
        return inputs, target

    def export(self, model: nn.Module) -> nn.Module:
        self._layers.remove()
        return model
