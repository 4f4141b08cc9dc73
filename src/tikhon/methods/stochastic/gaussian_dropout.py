"""Gaussian dropout: multiply features by normal noise of mean 1, with the variance that dropout has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.inserted import At, Inserted, check_places
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def gaussian_dropped(features: Tensor, p: float | Tensor) -> Tensor:
    """h (1 + sqrt(a) e), e ~ N(0, 1), a = p / (1 - p) (Srivastava et al. 2014, sec. 10; Kingma et al. 2015, sec. 2).

    features: of any shape; p: in [0, 1), a number or a tensor (). a is the variance of m / (1 - p) for m that is 1 with
    probability 1 - p and 0 otherwise. The noise comes from torch's global generator.

    >>> gaussian_dropped(torch.ones(2), 0.0)
    tensor([1., 1.])
    """
    deviation = (p / (1.0 - p)) ** 0.5
    return features * (1.0 + deviation * torch.randn_like(features))


class GaussianDropout(Method):
    """Multiply features by normal noise of mean 1 while training.

    Use it where dropout helps: the noise has the same mean and variance, nothing is set to zero, and every draw carries
    as much information as possible. Not in narrow layers, nor in front of batch norm.

        h <- h (1 + sqrt(a) e),   e ~ N(0, 1),   a = p / (1 - p)

    p: the rate of the dropout that has the same variance, in [0, 0.99]; at: after which modules, names or globs of the
    parts of names ("layers.*.relu"); before the last `nn.Linear` by default. Evaluation and the exported model are the
    plain network.

    Cost: one normal draw a feature and pass. Noise comes from torch's global generator, as that of `nn.Dropout` does.
    Reference: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, Journal of Machine Learning Research 15,
    section 10; as a posterior of the weights Kingma, Salimans, Welling 2015, arXiv 1506.02557.

    >>> recipe = tikhon.Recipe(tikhon.GaussianDropout(p=0.5))
    """

    card = Card(
        title="Variational Dropout and the Local Reparameterization Trick",
        authors="Kingma, Salimans, Welling",
        year=2015,
        arxiv="1506.02557",
        problems=("overfitting",),
        formula=r"h \leftarrow h \odot (1 + \sqrt{\alpha}\,\epsilon),\quad \alpha = p/(1-p)",
        claim="Multiplicative normal noise regularises as well as Bernoulli dropout, or slightly better.",
        helps="Wide fully connected layers, few samples, long training.",
        hurts="Narrow layers, short training, batch norm that follows it.",
        cost="One normal draw a feature.",
        neutral="p=0",
    )
    slots = {"prepare": "gate", "batch": "augment", "export": "merge"}
    exempt = {
        "accumulation": "every micro-batch draws noise of its own",
        "permutation": "noise belongs to places in the batch",
        "reproducible": "noise comes from the global generator, as the masks of nn.Dropout do",
    }

    def __init__(self, p: Strength = 0.5, at: At | None = None) -> None:
        super().__init__()
        self.p = checked("p", p, low=0.0, high=0.99)
        self.at = at
        self._layers = Inserted(gaussian_dropped)

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
