"""Adapters: a weight as a frozen residual plus a product of small trained factors, merged at export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from tikhon.core.errors import TikhonError
from tikhon.core.export import merge_parametrization
from tikhon.core.parameters import Selected, Where, check_parametrizable, freeze_others, select


class Adapter(nn.Module):
    """A parametrization: weight = residual + scale * (B diag(s)) A, reshaped to the weight's shape.

    a: (r, in); b: (out, r); s: (r,) or None for ones. They train as one leaf (r, in + out [+ 1]), the rows of A beside
    the columns of B, so that a weight has one name and one leaf; to optimizers that act on each entry it is the same.
    """

    residual: Tensor

    def __init__(self, weight: Tensor, a: Tensor, b: Tensor, s: Tensor | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.shape, self.columns, self.rows = weight.shape, a.shape[1], b.shape[0]
        self.scaled, self.scale = s is not None, scale
        self._leaf = torch.cat([a, b.T] if s is None else [a, b.T, s[:, None]], dim=1)
        scaled = b if s is None else b * s
        self.register_buffer("residual", torch.addmm(weight.detach().flatten(1), scaled, a, alpha=-scale))

    def factors(self, leaf: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """A (r, in), B (out, r) and s (r,) or None, as views of the leaf; of several leaves (..., r, n) all at once."""
        a, b, *s = leaf.split([self.columns, self.rows, *[1] * self.scaled], dim=-1)
        return a, b.mT, s[0][..., 0] if s else None

    def forward(self, leaf: Tensor) -> Tensor:
        a, b, s = self.factors(leaf)
        return (self.residual + self.scale * ((b if s is None else b * s) @ a)).reshape(self.shape)

    def linear(self, leaf: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output (..., out) for inputs (..., in), without the weight; the same to rounding."""
        a, b, s = self.factors(leaf)
        rows = x if x.ndim == 2 else x.reshape(-1, self.columns)
        inner = F.linear(rows, a) if s is None else F.linear(rows, a) * s
        outputs = torch.addmm(F.linear(rows, self.residual, bias), inner, b.mT, alpha=self.scale)
        return outputs if x.ndim == 2 else outputs.reshape(*x.shape[:-1], self.rows)

    def right_inverse(self, weight: Tensor) -> Tensor:
        # Asked for once, with the weight that the factors were made from.
        return self._leaf


def adapter_of(chosen: Selected) -> Adapter:
    """The adapter of an adapted weight."""
    adapter = chosen.module.get_submodule(f"parametrizations.{chosen.attribute}.0")
    assert isinstance(adapter, Adapter)
    return adapter


def _low_rank_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """x W^T + bias through the factors: the gradient of a weight that is frozen but for them is never needed."""
    chain: Any = layer.parametrizations.weight  # type: ignore[union-attr]
    adapter, *others = chain._modules.values()  # each look-up by a list's own means would cost a small product
    # where somebody has changed the weight since, and for intervals, whose bounds are tight through the weight alone
    if others or not isinstance(adapter, Adapter) or not isinstance(x, Tensor):
        return nn.Linear.forward(layer, x)
    return adapter.linear(chain.original, x, layer.bias)


def adapt(chosen: Sequence[tuple[Selected, Adapter]], model: nn.Module, freeze: bool) -> list[nn.Parameter]:
    """Put the adapters in and, with `freeze`, let nothing else train; returns what was frozen."""
    for one, adapter in chosen:
        parametrize.register_parametrization(one.module, one.attribute, adapter)
        if type(one.module).forward is nn.Linear.forward:
            # of the class that register_parametrization made for this module alone, and takes away when it is merged
            type(one.module).forward = _low_rank_linear
    kept = [one.module.get_parameter(f"parametrizations.{one.attribute}.original") for one, _ in chosen]
    return freeze_others(model, kept) if freeze else []


def merge(model: nn.Module, frozen: Sequence[nn.Parameter]) -> nn.Module:
    """Write the effective weights into plain ones, and let train again what `adapt` froze."""
    merge_parametrization(model, Adapter)
    for parameter in frozen:
        parameter.requires_grad_()
    return model


def checked_rank(rank: int) -> int:
    """Refuse a rank that no weight has."""
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise TikhonError(f"rank must be a positive integer, not {rank!r}.")
    return rank


def check_adaptable(model: nn.Module, where: Where, rank: int, method: str) -> None:
    """Refuse weights that cannot be parametrised, or that have no such rank."""
    chosen = select(model, where)
    check_parametrizable(model, chosen, method)
    for one in chosen:
        smaller = min(one.leaf.flatten(1).shape) if one.leaf.ndim > 1 else 0
        if smaller < rank:
            raise TikhonError(
                f"{method}: {one.name} of shape {tuple(one.leaf.shape)} has no rank of {rank}. Choose a smaller rank, "
                "or leave the layer out with where=."
            )
