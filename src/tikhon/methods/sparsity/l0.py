"""L0: a random gate on every hidden unit, trained to be exactly 0 or 1, and a price for each that is open."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.export import merge_parametrization
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where, check_parametrizable, every_parameter
from tikhon.core.pruning import remove
from tikhon.core.removable import Removable, find_removable
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.core.units import unit_parameters

BETA, GAMMA, ZETA = 2.0 / 3.0, -0.1, 1.1
"""Temperature of the concrete distribution and the interval that it is stretched to, as in the paper."""


def hard_concrete(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Gates in [0, 1], with mass on both ends (Louizos et al. 2017, equations 10 and 11).

        z = clip(sigmoid((log u - log(1 - u) + log alpha) / beta) (zeta - gamma) + gamma, 0, 1)

    log_alpha: (n,), above 0 for a gate that is rather open; uniform: u in (0, 1), (n,). Returns (n,).
    """
    noise = uniform.log() - (-uniform).log1p()
    return (torch.sigmoid((noise + log_alpha) / BETA) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def mean_gate(log_alpha: Tensor) -> Tensor:
    """The gate for prediction, clip(sigmoid(log alpha) (zeta - gamma) + gamma, 0, 1), of the same shape (equation 13).

    >>> mean_gate(torch.tensor([-3.0, 0.0, 3.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return (torch.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def chance_open(log_alpha: Tensor) -> Tensor:
    """P(z > 0) = sigmoid(log alpha - beta log(-gamma / zeta)), of the same shape (equation 12).

    >>> chance_open(torch.tensor([0.0]))
    tensor([0.8318])
    """
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


class Gated(nn.Module):
    """The parametrization: input unit j of a layer, which is `expansion` columns of its weight, times its gate."""

    uniform: Tensor
    weights: Tensor

    def __init__(self, weight: Tensor, units: int, open_at_first: float) -> None:
        super().__init__()
        like = weight.new_empty(units)
        self.log_alpha = nn.Parameter(torch.full_like(like, math.log(open_at_first) - math.log1p(-open_at_first)))
        self.register_buffer("uniform", torch.full_like(like, 0.5), persistent=False)  # drawn for every batch
        self.register_buffer("weights", torch.full_like(like, weight.numel() / units), persistent=False)  # of each gate

    def gates(self) -> Tensor:
        return hard_concrete(self.log_alpha, self.uniform) if self.training else mean_gate(self.log_alpha)

    def forward(self, weight: Tensor) -> Tensor:
        gates = self.gates()
        columns = gates[:, None].expand(-1, weight.shape[1] // len(gates))
        return weight * columns.reshape(-1, *[1] * (weight.ndim - 2))

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class L0(Method):
    """Put a random gate on every hidden unit, learn how often it is open, and pay for the weights that it lets pass.

    Use it to find a network's size while it trains: units whose gates close for good are removed at export, and the
    noise of the others is a kind of dropout whose rates are learned. Not where a given share must go, which no strength
    names in advance (`tikhon.DHSPG`), nor in short training: gates need many steps to settle.

        loss = task + strength sum_j |g_j| P(z_j > 0),   W_.j <- z_j W_.j
        z = clip(sigmoid((log u - log(1 - u) + log alpha) / beta) (zeta - gamma) + gamma, 0, 1)

    z_j: the gate of a layer's input unit j (a column of its weight, or the columns of a channel), with u uniform, drawn
    once a batch, and in evaluation clip(sigmoid(log alpha) (zeta - gamma) + gamma, 0, 1); |g_j|: how many weights it
    gates; beta = 2/3, gamma = -0.1, zeta = 1.1. Every layer that reads a unit has a gate of its own for it; `export`
    writes the gates into the weights and removes the units that all of them shut out. log alpha are parameters of your
    model, trained by your optimizer: they need a larger rate than weights where training is short, and no weight decay.

    strength: lambda, at least 0: the price of a weight, 0.1 by the number of samples in the paper (1.7e-6 on MNIST);
    the price of all weights together should stay below the task's loss, or all gates close;
    open_at_first: 1 / (1 + exp(-log alpha)) at the start, in (0, 1), 0.5: a gate is then 0.5 on average, which halves
    what each layer reads; 0.8 in the paper's input layers; where: layers whose output units are gated.

    Cost: a product of each gated weight with its gates a forward pass.
    Reference: Louizos, Welling, Kingma 2017, arXiv 1712.01312.

    >>> recipe = tikhon.Recipe(tikhon.L0(strength=1e-6))
    """

    card = Card(
        title="Learning Sparse Neural Networks through L0 Regularization",
        authors="Louizos, Welling, Kingma",
        year=2017,
        arxiv="1712.01312",
        problems=("compression", "overfitting"),
        formula=r"L = \mathrm{task} + \lambda\sum_j|g_j|\,\sigma(\log\alpha_j-\beta\log\tfrac{-\gamma}{\zeta}),"
        r"\quad W_{\cdot j} \leftarrow z_j W_{\cdot j}",
        claim="Trains networks that become smaller as they train, at no loss of accuracy.",
        helps="Over-wide networks of which nobody knows how large they need to be; long training.",
        hurts="Short training, in which gates do not settle; narrow layers.",
        cost="A product of each gated weight with its gates a forward pass.",
        neutral="",
    )
    slots = {"prepare": "parametrize", "batch": "augment", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights"})
    exempt = {
        "neutral": "gates are random and below 1 at any strength",
        "accumulation": "every micro-batch draws its own gates",
        "shards": "gates multiply columns of whole weights, of which a process holds rows",
    }

    def __init__(self, strength: Strength = 1e-6, open_at_first: float = 0.5, where: Where = "weights") -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        if not isinstance(checked("open_at_first", open_at_first, low=1e-6, high=1.0 - 1e-6), float):
            raise TikhonError("open_at_first is set once, when the model is prepared: a number, not a schedule.")
        self.open_at_first, self.where = float(open_at_first), where
        self.plan: dict[str, Tensor] = {}
        """After export: group name -> kept units, for `tikhon.core.pruning.apply_plan` on a fresh model."""
        self._removable = Removable()
        self._gates: list[Gated] = []

    def check(self, model: nn.Module) -> None:
        self._removable = find_removable(model, self.where, self.key)
        check_parametrizable(model, [chosen for chosen, _ in self._readers(model)], self.key)

    def _readers(self, model: nn.Module) -> list[tuple[Selected, int]]:
        """The weights that read gated units, and how many units each reads."""
        weights = {one.name: one for one in every_parameter(model)}
        return [
            (weights[f"{consumer.name}.weight"], group.size)
            for group in self._removable.groups
            for consumer in group.consumers
        ]

    def prepare(self, model: nn.Module) -> None:
        for one, units in self._readers(model):
            gated = Gated(one.leaf.detach(), units, self.open_at_first)
            parametrize.register_parametrization(one.module, one.attribute, gated)
            self._gates.append(gated)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        uniform = [one.uniform for one in self._gates]
        sizes, device = [len(one) for one in uniform], uniform[0].device
        drawn = torch.rand(sum(sizes), generator=step.generator(device), device=device).clamp(1e-6, 1.0 - 1e-6)
        torch._foreach_copy_(uniform, drawn.split(sizes))
        return inputs, target

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        weights = torch.cat([one.weights for one in self._gates])
        chances = chance_open(torch.cat([one.log_alpha for one in self._gates]))
        return {"open weights": Term((weights * chances).sum(), self.strength, per_sample=False)}

    def export(self, model: nn.Module) -> nn.Module:
        for one in self._gates:
            one.eval()  # what is merged is the gate for prediction, not the last that was drawn
        merge_parametrization(model, Gated)
        self._silence(model)
        self.plan = self._removable.plan(model)
        return remove(model, self.plan, self._removable.part)

    @torch.no_grad()
    def _silence(self, model: nn.Module) -> None:
        """Set to zero what computes the units that nobody reads any more: zero units can be removed."""
        parameters = dict(model.named_parameters())
        for group in self._removable.groups:
            read = [
                (parameters[f"{consumer.name}.weight"] != 0).transpose(0, 1).reshape(group.size, -1).any(1)
                for consumer in group.consumers
            ]
            for name in unit_parameters(group):
                if name in parameters:
                    parameters[name][~torch.stack(read).any(0)] = 0.0
