"""Ascent: small changes of the weights that raise the loss the most, for sharpness-aware training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tikhon.math.precision import largest_magnitudes

MODERATE = 1e-12, 1e12
"""Between these norms no square that counts has left the range of float32."""


def ascent_offsets(gradients: Sequence[Tensor], radius: float) -> list[Tensor]:
    """radius * g / ||g||, the norm over all tensors together (Foret et al. 2021, arXiv 2010.01412, eq. 2 with p = 2).

    Gradients that are all zero give offsets of zero.

    >>> ascent_offsets([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    [tensor([0.6000]), tensor([0.8000])]
    """
    factor = _factor(gradients, radius)
    if factor is not None:
        return list(torch._foreach_mul(list(gradients), factor))
    # Scaled to a largest element of 1 first: the squares of small gradients underflow, and dividing by a norm of 0
    # would throw the weights far away just when the network has fitted its data.
    offsets = list(torch._foreach_div(list(gradients), largest_magnitudes(gradients).amax()))
    torch._foreach_mul_(offsets, radius / _norm(offsets).clamp_min(1.0))
    return offsets


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
    return norm


def _factor(gradients: Sequence[Tensor], radius: float) -> Tensor | None:
    """radius / ||g|| of moderate gradients on the CPU, else None: elsewhere a look at the norm would wait for it.

    None in float16 too, where the quotient of moderate numbers overflows.
    """
    if not gradients[0].is_cpu or gradients[0].dtype == torch.float16:
        return None
    norm = _norm(gradients)
    return radius / norm if MODERATE[0] < norm.item() < MODERATE[1] else None


def scaled_ascent_offsets(scales: Sequence[Tensor], gradients: Sequence[Tensor], radius: float) -> list[Tensor]:
    """radius * T^2 g / ||T g||, T the diagonal of `scales`: the steepest ascent e with ||e / T|| <= radius.

    scales: T > 0; gradients: tensors of equal shapes; the norm is over all of them together. Gradients that are all
    zero give offsets of zero. Source: Kwon et al. 2021, arXiv 2102.11600, equation 7.

    >>> scaled_ascent_offsets([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 2.0])], 1.0)
    [tensor([0.6000, 1.6000])]
    """
    offsets = list(torch._foreach_mul(list(gradients), list(scales)))
    factor = _factor(offsets, radius)
    if factor is None:
        offsets = ascent_offsets(offsets, radius)
    else:
        torch._foreach_mul_(offsets, factor)
    torch._foreach_mul_(offsets, list(scales))
    return offsets


def relative_ascent_offsets(weights: Sequence[Tensor], gradients: Sequence[Tensor], share: float) -> list[Tensor]:
    """share * ||w_l|| g_l / ||g_l|| of every tensor l by itself (Wu et al. 2020, arXiv 2004.05884, equations 8 and 9).

    weights, gradients: one pair of equal shape a parameter. A gradient of zero gives an offset of zero.

    >>> relative_ascent_offsets([torch.tensor([0.0, 2.0])], [torch.tensor([3.0, 4.0])], 0.1)
    [tensor([0.1200, 0.1600])]
    """
    # Directions with a largest element of 1, because the squares of small gradients would underflow.
    offsets = list(torch._foreach_div(list(gradients), largest_magnitudes(gradients).unbind()))
    lengths = torch._foreach_mul(torch._foreach_norm(list(weights)), share)
    factors = torch._foreach_div(lengths, torch._foreach_clamp_min(torch._foreach_norm(offsets), 1.0))
    torch._foreach_mul_(offsets, factors)
    return offsets
