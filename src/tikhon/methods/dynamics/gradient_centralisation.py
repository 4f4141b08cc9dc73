"""Gradient centralisation: the gradient of every unit's weights has mean zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where
from tikhon.core.step import Step


def centralised(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Every gradient less its mean over all dimensions but the first, of each output unit by itself.

    gradients: tensors (out, ...) of two or more dimensions. Returns new tensors.
    Source: Yong et al. 2020, arXiv 2004.01461, equation 1.

    >>> centralised([torch.tensor([[1.0, 3.0], [0.0, 4.0]])])
    [tensor([[-1.,  1.],
            [-2.,  2.]])]
    """
    return list(torch._foreach_sub(list(gradients), _means(gradients)))


def _means(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [one.mean(dim=tuple(range(1, one.ndim)), keepdim=True) for one in tensors]


class GradientCentralisation(Method):
    """Take the mean out of the gradient of every unit's weights.

    Use it with convolutional and fully connected networks trained from scratch: it is free, smooths the loss, and keeps
    each unit's mean weight where it began. Not on weights whose mean must move, as in a regression on inputs that are
    not centred; a first step from zero weights; low-rank factors.

        g_u <- g_u - mean(g_u)     for the weights of every output unit u

    where: which parameters, by default all of two or more dimensions; others have no unit with several weights and are
    left as they are. The optimizer's weight decay comes after and still draws means to 0.

    Cost: two passes over the gradients. Reference: Yong, Huang, Hua, Zhang 2020, arXiv 2004.01461.

    >>> recipe = tikhon.Recipe(tikhon.GradientCentralisation())
    """

    card = Card(
        title="Gradient Centralization: A New Optimization Technique for Deep Neural Networks",
        authors="Yong, Huang, Hua, Zhang",
        year=2020,
        arxiv="2004.01461",
        problems=("overfitting", "stability", "speed"),
        formula=r"g_u \leftarrow g_u - \tfrac1M\sum_{j=1}^M g_{uj}",
        claim="Speeds training up and generalises better, as a constraint on the weights and on the output.",
        helps="Convolutional and fully connected networks trained from scratch.",
        hurts="Layers whose mean weight has to be learned.",
        cost="Two passes over the gradients.",
        neutral="",
    )
    slots = {"gradients": "project"}
    exempt = {"neutral": "a projection has no strength; use tk.During for a part of training"}

    def __init__(self, where: Where = "weights") -> None:
        super().__init__()
        self.where = where

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        found = [one.leaf.grad for one in parameters if one.leaf.grad is not None and one.leaf.ndim > 1]
        if found:
            torch._foreach_sub_(found, _means(found))
