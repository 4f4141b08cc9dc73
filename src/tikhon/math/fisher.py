"""The diagonal of the empirical Fisher information, and distances that it weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils import _pytree as pytree

from tikhon.math.norms import half_squared_norm, sum_of_entries

GRADIENTS_AT_ONCE = 2**26
"""How many numbers the gradients of single samples may take at a time: 256 MB in float32."""


def anchor_penalty(weights: Sequence[Tensor], anchors: Sequence[Tensor], importance: Sequence[Tensor] = ()) -> Tensor:
    """(1/2) sum_i F_i (theta_i - theta*_i)^2 over all tensors; a scalar.

    weights, anchors: tensors of equal shapes; importance: F >= 0, of the same shapes, or none for F = 1.
    Source: Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3.

    >>> anchor_penalty([torch.tensor([1.0, 2.0])], [torch.tensor([0.0, 0.0])], [torch.tensor([4.0, 0.0])])
    tensor(2.)
    """
    distances = torch._foreach_sub(list(weights), list(anchors))
    if not importance:
        return half_squared_norm(distances)
    products = torch._foreach_mul(torch._foreach_mul(distances, distances), list(importance))
    return 0.5 * sum_of_entries(products)


def anchor_pull(
    weights: Sequence[Tensor], anchors: Sequence[Tensor], importance: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """F_i (theta_i - theta*_i), the gradient of `anchor_penalty` by each weight.

    >>> anchor_pull([torch.tensor([1.0, 2.0])], [torch.tensor([0.0, 0.0])], [torch.tensor([4.0, 0.0])])
    (tensor([4., 0.]),)
    """
    distances = torch._foreach_sub(list(weights), list(anchors))
    return torch._foreach_mul(distances, list(importance)) if importance else distances


def squared_gradients(
    loss: Callable[[dict[str, Tensor], Any, Tensor], Tensor], weights: Mapping[str, Tensor], inputs: Any, values: Tensor
) -> dict[str, Tensor]:
    """sum_n (d loss(weights, x_n, y_n) / d weights)^2, for every weight: N times the diagonal of the empirical Fisher.

    loss: of one sample, a scalar; inputs: a tensor (N, ...) or a nest of these; values: (N, ...). The gradients of a
    few samples at a time are held in memory.
    """
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    rows = max(1, GRADIENTS_AT_ONCE // max(1, sum(weight.numel() for weight in weights.values())))
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for start in range(0, len(values), rows):
        some = gradients(dict(weights), _rows(inputs, start, start + rows), values[start : start + rows])
        for name, gradient in some.items():
            total[name] += gradient.square().sum(0)
    return total


def _rows(inputs: Any, start: int, stop: int) -> Any:
    return pytree.tree_map(lambda tensor: tensor[start:stop], inputs)
