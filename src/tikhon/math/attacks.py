"""Attacks: small changes of inputs that raise a loss the most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError

Norm = Literal["inf", "2"]
"""How the length of a sample's change is measured: its largest entry, or its Euclidean norm."""


def rows_norm(values: Tensor) -> Tensor:
    """The Euclidean norm of every sample, shaped so that it divides the samples: (B, ...) -> (B, 1, ...).

    >>> rows_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[5.],
            [0.]])
    """
    lengths: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return lengths.reshape(-1, *[1] * (values.ndim - 1))


def dual_norm(slopes: Tensor, norm: Norm) -> Tensor:
    """By how much a change of length 1 can raise a function with these slopes: their l1 norm, or their Euclidean one.

    slopes: (..., D); norm: of the change. Returns (...).

    >>> dual_norm(torch.tensor([3.0, -4.0]), "inf"), dual_norm(torch.tensor([3.0, -4.0]), "2")
    (tensor(7.), tensor(5.))
    """
    lengths: Tensor = torch.linalg.vector_norm(slopes, ord=1 if norm == "inf" else 2, dim=-1)
    return lengths


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The change of length 1 along which a loss rises the most: the signs, or the direction; 0 where the gradient is.

    gradient: (B, ...), each sample's own. Returns (B, ...).

    >>> steepest(torch.tensor([[3.0, -4.0]]), "inf"), steepest(torch.tensor([[3.0, -4.0]]), "2")
    (tensor([[ 1., -1.]]), tensor([[ 0.6000, -0.8000]]))
    """
    if norm == "inf":
        return gradient.sign()
    # Scaled to a largest entry of 1 first: the squares of small gradients underflow.
    largest = gradient.flatten(1).abs().amax(1).reshape(-1, *[1] * (gradient.ndim - 1))
    scaled = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / rows_norm(scaled).clamp_min(1.0)


def within(change: Tensor, radius: float, norm: Norm) -> Tensor:
    """The nearest change that is no longer than `radius`. change: (B, ...). Returns (B, ...).

    >>> within(torch.tensor([[3.0, -4.0]]), 1.0, "inf"), within(torch.tensor([[3.0, -4.0]]), 1.0, "2")
    (tensor([[ 1., -1.]]), tensor([[ 0.6000, -0.8000]]))
    """
    if norm == "inf":
        return change.clamp(-radius, radius)
    length = rows_norm(change)
    return change * (radius / length.clamp_min(torch.finfo(change.dtype).tiny)).clamp_max(1.0)


def projected_ascent(
    losses: Callable[[Tensor], Tensor],
    inputs: Tensor,
    start: Tensor,
    radius: float,
    step_size: float,
    steps: int,
    norm: Norm = "inf",
    valid: tuple[float, float] | None = None,
) -> Tensor:
    """Inputs near the given ones with a large loss, by projected gradient ascent (Madry et al. 2017, arXiv 1706.06083).

        x <- valid(x0 + within(x + step_size steepest(dloss/dx) - x0))

    losses: (B, ...) -> (B,), the loss of every sample; inputs: x0, (B, ...); start: (B, ...), how far from there the
    search begins, for example at random within the radius; radius, step_size: at least 0, in units of the inputs;
    steps: how many; valid: the least and greatest value of an input. Returns (B, ...) without gradient. One step of the
    size of the radius from a start of zero is the fast gradient sign method (Goodfellow et al. 2014, arXiv 1412.6572).

    >>> x = torch.tensor([[0.5, 0.9]])
    >>> projected_ascent(lambda x: x.sum(1), x, torch.zeros(1, 2), 0.2, 0.1, steps=3, valid=(0.0, 1.0))
    tensor([[0.7000, 1.0000]])
    """
    inputs = inputs.detach()

    def allowed(change: Tensor) -> Tensor:
        near = inputs + within(change, radius, norm)
        return near if valid is None else near.clamp(*valid)

    found = allowed(start)
    with torch.enable_grad():
        for _ in range(steps):
            found.requires_grad_()
            (gradient,) = torch.autograd.grad(losses(found).sum(), found)
            found = allowed(found.detach() + step_size * steepest(gradient, norm) - inputs)
    return found


def check_attack(steps: int, norm: str, valid: tuple[float, float] | None) -> None:
    """Raise a `TikhonError` for settings that `projected_ascent` cannot work with."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise TikhonError(f"steps must be a positive integer, not {steps!r}.")
    if norm not in ("inf", "2"):
        raise TikhonError(f'norm is "inf" or "2", not {norm!r}.')
    if valid is not None and not (len(valid) == 2 and valid[0] < valid[1]):
        raise TikhonError(f"valid is the least and the greatest value of an input, not {valid}.")
