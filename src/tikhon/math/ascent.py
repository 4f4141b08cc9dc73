"""Ascent: small changes of the weights that raise the loss the most, for sharpness-aware training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ascent_offsets(gradients: Sequence[Tensor], radius: float) -> list[Tensor]:
    """radius * g / ||g||, the norm over all tensors together (Foret et al. 2021, arXiv 2010.01412, eq. 2 with p = 2).

    Gradients that are all zero give offsets of zero.

    >>> ascent_offsets([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    [tensor([0.6000]), tensor([0.8000])]
    """
    # Scaled to a largest element of 1 first: the squares of small gradients underflow, and dividing by a norm of 0
    # would throw the weights far away just when the network has fitted its data.
    largest = torch.stack(_largest(gradients)).amax()
    scaled = torch._foreach_div(list(gradients), largest.clamp_min(torch.finfo(largest.dtype).tiny))
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(scaled)))
    return list(torch._foreach_mul(scaled, radius / norm.clamp_min(1.0)))


def scaled_ascent_offsets(scales: Sequence[Tensor], gradients: Sequence[Tensor], radius: float) -> list[Tensor]:
    """radius * T^2 g / ||T g||, T the diagonal of `scales`: the steepest ascent e with ||e / T|| <= radius.

    scales: T > 0; gradients: tensors of equal shapes; the norm is over all of them together. Gradients that are all
    zero give offsets of zero. Source: Kwon et al. 2021, arXiv 2102.11600, equation 7.

    >>> scaled_ascent_offsets([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 2.0])], 1.0)
    [tensor([0.6000, 1.6000])]
    """
    directions = ascent_offsets(torch._foreach_mul(list(gradients), list(scales)), radius)
    return list(torch._foreach_mul(directions, list(scales)))


def relative_ascent_offsets(weights: Sequence[Tensor], gradients: Sequence[Tensor], share: float) -> list[Tensor]:
    """share * ||w_l|| g_l / ||g_l|| of every tensor l by itself (Wu et al. 2020, arXiv 2004.05884, equations 8 and 9).

    weights, gradients: one pair of equal shape a parameter. A gradient of zero gives an offset of zero.

    >>> relative_ascent_offsets([torch.tensor([0.0, 2.0])], [torch.tensor([3.0, 4.0])], 0.1)
    [tensor([0.1200, 0.1600])]
    """
    # Directions with a largest element of 1, because the squares of small gradients would underflow.
    largest = [one.clamp_min(torch.finfo(one.dtype).tiny) for one in _largest(gradients)]
    scaled = torch._foreach_div(list(gradients), largest)
    lengths = torch._foreach_mul(torch._foreach_norm(list(weights)), share)
    factors = torch._foreach_div(lengths, torch._foreach_clamp_min(torch._foreach_norm(scaled), 1.0))
    return list(torch._foreach_mul(scaled, factors))


def _largest(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The largest magnitude of each. What the infinity norm is, which takes many times as long on a CPU."""
    if torch.compiler.is_compiling():  # it knows no maximum over lists
        return list(torch._foreach_norm(list(tensors), ord=torch.inf))
    return list(torch._foreach_max(torch._foreach_abs(list(tensors))))
