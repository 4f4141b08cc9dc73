"""Nests of tensors as one vector, for algorithms that know vectors only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tikhon.core.errors import TikhonError


def flattened(nest: Any, name: str) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """All numbers of a nest in one vector (N,), and what makes such a vector a nest again.

    nest: a floating-point tensor, or dicts, lists and tuples of these, all of one type and on one device; name: what an
    error calls it. The vector is a detached copy; the way back is differentiable.

    >>> vector, nested = flattened({"a": torch.zeros(2), "b": torch.ones(())}, "x")
    >>> vector, nested(2 * vector)["b"]
    (tensor([0., 0., 1.]), tensor(2.))
    """
    leaves, structure = pytree.tree_flatten(nest)
    if not leaves or not all(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves):
        raise TikhonError(f"{name} must be a floating-point tensor, or a dict of these, not {type(nest).__name__}.")
    if len({(leaf.dtype, leaf.device) for leaf in leaves}) > 1:
        raise TikhonError(f"The tensors of {name} must have one type and be on one device.")
    shapes = [leaf.shape for leaf in leaves]
    sizes = [leaf.numel() for leaf in leaves]

    def nested(vector: Tensor) -> Any:
        parts = [part.reshape(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]
        return pytree.tree_unflatten(parts, structure)

    return torch.cat([leaf.detach().reshape(-1) for leaf in leaves]), nested
