"""Domain-adversarial training: features from which a discriminator cannot tell the domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.domains import ComparedFeatures
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import find_module
from tikhon.core.pool import Dataset
from tikhon.core.step import Step, seed_for
from tikhon.core.strength import Strength, checked, logistic
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms

RISING = logistic(0.0, 1.0)
"""The paper's schedule: 2 / (1 + exp(-10 p)) - 1."""


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """x itself, with -strength times the gradient (Ganin et al. 2016, arXiv 1505.07818, eq. 9 and 10).

    >>> x = torch.tensor([2.0], requires_grad=True)
    >>> reversed_gradient(x, 0.5).square().backward()
    >>> x.grad
    tensor([-2.])
    """
    return x.detach() + strength * (x.detach() - x)  # the bracket is exactly zero, and its gradient is not


class DANN(Method):
    """Learn features that serve the task and do not betray the domain.

    Use it where test data come from another domain than the labelled ones: with inputs of that domain, which need no
    labels, or with several labelled domains for one that is unknown. Not where classes are of other shares in the other
    domain, which alignment then mixes up; training may be unstable, and wants a small learning rate.

        loss = task + CE(D(R(z)), domain),   R(z) = z,   dR/dz = -strength

    z: what goes into the module `at`; D: a discriminator of one hidden layer, which learns to tell the domain, while
    the reversed gradient makes the features worse for it.

    domains: (samples,), the domain of every training sample as an integer from 0; or unlabelled: inputs of the other
    domain, a tensor or a map-style data set, of which a batch is drawn in every step; strength: at least 0; by default
    the paper's 2 / (1 + exp(-10 p)) - 1 in training's progress p, for which `attach` must know how long training is;
    width: of the hidden layer, 100 in the paper's smallest network; at: an `nn.Linear`, by default the last one, the
    classifier. The discriminator trains with the model, as parameters `dann_discriminator_*` of it, and is gone after
    export. Batch norm sees the unlabelled inputs by themselves, and its running statistics are those of the labelled
    ones. Under mixing a row is of its own sample's domain.

    Cost: the discriminator, and with unlabelled inputs a pass on as many of these as the batch has rows.
    Reference: Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand, Lempitsky 2016, arXiv 1505.07818.

    >>> target_inputs = torch.randn(100, 8)
    >>> recipe = tikhon.Recipe(tikhon.DANN(unlabelled=target_inputs))
    """

    card = Card(
        title="Domain-Adversarial Training of Neural Networks",
        authors="Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand, Lempitsky",
        year=2016,
        arxiv="1505.07818",
        problems=("shift",),
        formula=r"L = \mathrm{task} + \mathrm{CE}(D(R_\lambda(z)), d),\quad \partial R_\lambda/\partial z = -\lambda",
        claim="Features that serve the task but do not tell the domain are right more often on one without labels.",
        helps="Inputs of the test domain without labels, or several labelled domains.",
        hurts="Domains with other shares of classes; an adversary makes training less stable.",
        cost="A discriminator, and a pass on the unlabelled inputs.",
    )
    slots = {"prepare": "tap", "export": "merge"}

    def __init__(
        self,
        domains: Tensor | None = None,
        unlabelled: Tensor | Dataset | None = None,
        strength: Strength = RISING,
        width: int = 100,
        at: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise TikhonError(f"width must be a positive integer, not {width!r}.")
        self.compared = ComparedFeatures(domains, unlabelled, at, self.key)
        self.needs = self.compared.needs
        self.strength = checked("strength", strength, low=0.0)
        self.width = width

    def check(self, model: nn.Module) -> None:
        self.compared.check(model, linear=True)

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (self.compared.place(model),)

    @property
    def leaves(self) -> list[str]:
        """The names of the discriminator's parameters in the model."""
        prefix = self.key.replace(".", "_")
        return [f"{prefix}_discriminator_{kind}{layer}" for layer in (1, 2) for kind in ("weight", "bias")]

    def prepare(self, model: nn.Module) -> None:
        head = find_module(model, self.compared.place(model), self.key)
        assert isinstance(head, nn.Linear)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.key, "discriminator"))
            layers = nn.Linear(head.in_features, self.width), nn.Linear(self.width, self.compared.count)
        leaves = [leaf for layer in layers for leaf in (layer.weight, layer.bias)]
        for name, leaf in zip(self.leaves, leaves, strict=True):
            model.register_parameter(name, nn.Parameter(leaf.detach().to(head.weight)))

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        strength = step.value(self.strength)
        if strength == 0.0:
            return {}
        features, members = self.compared.read(output, target, step)
        first, bias, second, other = (getattr(step.model, name) for name in self.leaves)
        scores = F.linear(F.relu(F.linear(reversed_gradient(features, strength), first, bias)), second, other)
        losses = F.cross_entropy(scores, members.argmax(0), reduction="none")
        # An unlabelled row counts as much as the row of the batch beside which it was drawn.
        return {"domain": Term(losses.reshape(-1, len(output)).mean(0))}

    def export(self, model: nn.Module) -> nn.Module:
        for name in self.leaves:
            delattr(model, name)
        return model
