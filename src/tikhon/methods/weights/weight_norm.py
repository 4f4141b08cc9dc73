"""Weight norm: train the length and the direction of every unit's weights apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.export import merge_parametrization
from tikhon.core.method import Method
from tikhon.core.parameters import Where, check_parametrizable, select


def of_length(g: Tensor, v: Tensor) -> Tensor:
    """w = g v / |v|, every unit's weights with length g and the direction of v (Salimans and Kingma 2016, equation 2).

    g: (m, 1); v: (m, n), no row zero. Returns w, (m, n).

    >>> of_length(torch.tensor([[10.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[6., 8.]])
    """
    lengths: Tensor = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return v * (g / lengths)


class LengthAndDirection(nn.Module):
    """The parametrization: leaves g, (m, 1, ...), and v, of the weight's shape, as torch's own has them. As one leaf
    they would have to be taken apart and their gradients be put together, which takes longer than the norm itself."""

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        # `of_length` with a backward pass in one piece: a fifth of the time
        weight: Tensor = torch._weight_norm(v, g, 0)
        return weight

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        g: Tensor = torch.norm_except_dim(weight, 2, 0)
        return g, weight


class WeightNorm(Method):
    """Write every unit's weights as a length times a direction, and train both.

    Use it to train faster where batch norm does not fit: small batches, recurrent networks, reinforcement learning,
    generative models. A step turns v without shortening it, so that v grows and its effective learning rate falls by
    itself where gradients are noisy. Not beside batch norm, which already makes scales free. The network computes the
    same at the start, up to rounding; the paper also sets lengths and biases by a first batch of data, which is left
    to you, as is its batch norm of means alone.

        w = g v / |v|

    g: a number a unit, the rows of the weight; v: of the weight's shape. Both are trained by your optimizer, as
    `parametrizations.weight.original0` and `original1`: give v a group without weight decay, which does nothing there
    but keep steps large. where: which weights; a layer with a unit whose weights are all zero has no direction for it
    and is refused.

    Cost: a norm a unit and forward pass. Nothing after export: w is merged.
    Reference: Salimans, Kingma 2016, arXiv 1602.07868.

    >>> recipe = tikhon.Recipe(tikhon.WeightNorm())
    """

    card = Card(
        title="Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
        authors="Salimans, Kingma",
        year=2016,
        arxiv="1602.07868",
        problems=("speed", "stability"),
        formula=r"w = g\,v/\lVert v\rVert",
        claim="Speeds up convergence, like batch normalisation but without dependence between samples.",
        helps="Networks without batch norm: small batches, recurrent and generative models.",
        hurts="Networks with batch norm; weight decay on directions.",
        cost="A norm of each unit's weights a forward pass.",
        neutral="",
    )
    slots = {"prepare": "parametrize", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights", "zero-keeping weights"})
    exempt = {"neutral": "length and direction do not train as the weight does"}

    def __init__(self, where: Where = "weights") -> None:
        super().__init__()
        self.where = where

    def check(self, model: nn.Module) -> None:
        chosen = select(model, self.where)
        check_parametrizable(model, chosen, self.key)
        for one in chosen:
            if one.leaf.ndim < 2 or not bool((one.leaf != 0).flatten(1).any(1).all()):
                raise TikhonError(
                    f"{self.key} needs a direction for every unit, and {one.name} of shape {tuple(one.leaf.shape)} "
                    f"{'has a unit of zeros' if one.leaf.ndim > 1 else 'has no units'}: leave it out with where=."
                )

    def prepare(self, model: nn.Module) -> None:
        for one in select(model, self.where):
            parametrize.register_parametrization(one.module, one.attribute, LengthAndDirection())

    def export(self, model: nn.Module) -> nn.Module:
        merge_parametrization(model, LengthAndDirection)
        return model
