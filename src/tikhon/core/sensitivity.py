"""Sensitivity: what methods share that differentiate a network by its inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError


def one_float_tensor(inputs: Any, method: str) -> Tensor:
    """The inputs, if they are a single floating-point tensor; otherwise a `TikhonError`."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = f"{inputs.dtype} tensor" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TikhonError(
            f"{method} moves the inputs a little, and needs them as one floating-point tensor, not as {kind}. "
            "Embed what is discrete first: pass inputs= a callable that does."
        )
    return inputs


def differentiable(inputs: Any, method: str) -> Tensor:
    """The same inputs, by which what comes after can be differentiated. For the moment `batch`."""
    return one_float_tensor(inputs, method).detach().requires_grad_()


def squared_jacobian(output: Tensor, inputs: Tensor, probes: Tensor) -> Tensor:
    """An unbiased estimate of || d output_i / d inputs_i ||_F^2 of every sample i, with a graph to the weights.

        (1/P) sum_p || J_i^T v_pi ||^2,   E v v^T = I   (Hutchinson 1990)

    output: (B, ...), computed from inputs (B, ...), which require a gradient; probes: (P, B, ...), each shaped as the
    output. Random ones have E v v^T = I; with sqrt(K) times the K unit vectors the sum is exact. Returns (B,), at least
    0. Samples must not act on each other.

    >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> squared_jacobian(3.0 * x, x, torch.ones(1, 1, 2)).detach()
    tensor([18.])
    """
    total = output.new_zeros(len(output))
    for probe in probes:
        (pulled,) = torch.autograd.grad(output, inputs, probe, create_graph=True)
        total = total + pulled.flatten(1).square().sum(1)
    return total / len(probes)
