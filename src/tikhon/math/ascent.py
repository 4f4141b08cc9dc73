"""Ascent: small changes of the weights that raise the loss the most, for sharpness-aware training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tikhon.math.precision import largest_magnitudes


def ascent_offsets(gradients: Sequence[Tensor], radius: float) -> list[Tensor]:
    """radius * g / ||g||, the norm over all tensors together (Foret et al. 2021, arXiv 2010.01412, eq. 2 with p = 2).

    Gradients that are all zero give offsets of zero.

    >>> ascent_offsets([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    [tensor([0.6000]), tensor([0.8000])]
    """
    # Scaled to a largest element of 1 first: the squares of small gradients underflow, and dividing by a norm of 0
    # would throw the weights far away just when the network has fitted its data.
    offsets = list(torch._foreach_div(list(gradients), largest_magnitudes(gradients).amax()))
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(offsets)))
    torch._foreach_mul_(offsets, radius / norm.clamp_min(1.0))
    return offsets


def scaled_ascent_offsets(scales: Sequence[Tensor], gradients: Sequence[Tensor], radius: float) -> list[Tensor]:
    """radius * T^2 g / ||T g||, T the diagonal of `scales`: the steepest ascent e with ||e / T|| <= radius.

    scales: T > 0; gradients: tensors of equal shapes; the norm is over all of them together. Gradients that are all
    zero give offsets of zero. Source: Kwon et al. 2021, arXiv 2102.11600, equation 7.

    >>> scaled_ascent_offsets([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 2.0])], 1.0)
    [tensor([0.6000, 1.6000])]
    """
    offsets = ascent_offsets(torch._foreach_mul(list(gradients), list(scales)), radius)
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
