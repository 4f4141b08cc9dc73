"""Weight compander: w = a arctan(v / b) bounds large weights and moves small ones away from zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.export import merge_parametrization
from tikhon.core.method import Method
from tikhon.core.parameters import Where, check_parametrizable, select
from tikhon.core.strength import checked


def companded(v: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """w = a arctan(v / b), in (-a pi/2, a pi/2), with slope a b / (b^2 + v^2): a / b at 0.

    v: of any shape; a, b > 0. Source: Cakaj, Mehnert, Yang 2023, arXiv 2306.16993.

    >>> companded(torch.tensor([0.0, 0.5, 1e9]), 1.0, 0.5)
    tensor([0.0000, 0.7854, 1.5708])
    """
    return a * torch.arctan(v / b)


def expanded(w: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """v = b tan(w / a), the inverse of `companded`, for |w| < a pi/2."""
    return b * torch.tan(w / a)


class Companded(nn.Module):
    """The parametrization. a and b are kept as logarithms, so that they stay positive however an optimizer moves them.

    One-element tensors, not scalars: sharded training does not take scalars.
    """

    log_a: Tensor
    log_b: Tensor

    def __init__(self, a: float, b: float, learned: bool, like: Tensor) -> None:
        super().__init__()
        for name, value in (("log_a", a), ("log_b", b)):
            logarithm = torch.full((1,), math.log(value), dtype=like.dtype, device=like.device)
            if learned:
                self.register_parameter(name, nn.Parameter(logarithm))
            else:
                self.register_buffer(name, logarithm)

    def forward(self, v: Tensor) -> Tensor:
        return companded(v, self.log_a.exp(), self.log_b.exp())

    def right_inverse(self, w: Tensor) -> Tensor:
        return expanded(w, self.log_a.exp(), self.log_b.exp())


class WeightCompander(Method):
    """Give every weight the form a arctan(v / b), and train v.

    Use it on top of other regularisation when a few large weights dominate: no weight can exceed a pi/2, and a step of
    v moves a small weight a / b times as far as a large one, which brings "dead" weights back. v starts at the inverse
    of the weights as they are, so the network computes the same as before (to rounding). Note that an optimizer's
    weight decay now acts on v (and, where learned, on log a and log b, pulling both towards a = b = 1), and that plain
    gradient steps near zero are (a / b)^2 times as large.

        w = a arctan(v / b)

    a: more than 2 / pi of the largest weight at the start; b: below a, so that the slope a / b at zero is above 1.
    learned: a and b of every layer are trained by your optimizer too. All weights of the layer pull at them: give them
    a group of their own with a far smaller learning rate, or training diverges. where: which parameters, the weights by
    default; tied weights cannot be parametrised. a and b are set once, by surgery: numbers, no schedules. The values of
    a and b and that log a and log b are what is trained are our choice: the paper's settings could not be consulted.

    Cost: one arctan a weight and forward pass, and its derivative. Nothing after export: w is merged.
    Reference: Cakaj, Mehnert, Yang 2023, arXiv 2306.16993.

    >>> recipe = tikhon.Recipe(tikhon.WeightCompander(a=1.0, b=0.5))
    """

    card = Card(
        title="Weight Compander: A Simple Weight Reparameterization for Regularization",
        authors="Cakaj, Mehnert, Yang",
        year=2023,
        arxiv="2306.16993",
        problems=("overfitting",),
        formula=r"w = a\arctan(v/b)",
        claim="Used in addition to standard regularisation, it improves the performance of neural networks.",
        helps="Networks in which few large weights dominate and many are near zero.",
        hurts="Weights that must be large; it undoes sparsity on purpose.",
        cost="One arctan a weight and forward pass.",
        neutral="",
    )
    slots = {"prepare": "parametrize", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights"})
    exempt = {"neutral": "No a and b make arctan the identity; a = b only approaches it as they grow."}

    def __init__(self, a: float = 1.0, b: float = 0.5, learned: bool = False, where: Where = "weights") -> None:
        super().__init__()
        for name, value in (("a", a), ("b", b)):
            if not isinstance(checked(name, value, low=1e-6), float):
                raise TikhonError(f"{name} is set once, when the model is prepared: a number, not a schedule.")
        self.a, self.b = float(a), float(b)
        self.learned = learned
        self.where = where

    def check(self, model: nn.Module) -> None:
        chosen = select(model, self.where)
        check_parametrizable(model, chosen, self.key)
        for one in chosen:
            largest = float(one.leaf.detach().abs().max()) if one.leaf.numel() else 0.0
            if not largest < self.a * math.pi / 2:
                raise TikhonError(
                    f"{self.key} keeps weights below a * pi/2 = {self.a * math.pi / 2:.4g}, and {one.name} has one of "
                    f"{largest:.4g}: choose a above {largest * 2 / math.pi:.4g}, or leave that layer out with where=."
                )

    def prepare(self, model: nn.Module) -> None:
        for one in select(model, self.where):
            compander = Companded(self.a, self.b, self.learned, like=one.leaf)
            parametrize.register_parametrization(one.module, one.attribute, compander)

    def export(self, model: nn.Module) -> nn.Module:
        merge_parametrization(model, Companded)
        return model
