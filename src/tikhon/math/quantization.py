"""Rounding to integers with a gradient: what quantised layers share."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float32).eps
"""Added to every bound, so that zeros have a scale."""


def round_to_signed(values: Tensor, bits: int) -> Tensor:
    """The nearest integer in [-(2^(b - 1) - 1), 2^(b - 1) - 1], halves up; gradient 1 inside and 0 outside.

    values: any shape; bits: b, at least 2. Returns integers in the type of the values, exactly.

    >>> round_to_signed(torch.tensor([-9.0, -0.5, 2.5]), bits=4)
    tensor([-7., 0., 3.])
    """
    top = 2 ** (bits - 1) - 1
    return _straight_through(torch.floor(values + 0.5).clamp(-top, top), values.clamp(-top - 0.5, top + 0.5))


def floor_to_unsigned(values: Tensor, bits: int) -> Tensor:
    """The integer below, in [0, 2^b - 1]; gradient 1 inside and 0 outside.

    values: any shape; bits: b, at least 1. Returns integers in the type of the values, exactly.

    >>> floor_to_unsigned(torch.tensor([-1.0, 2.9, 16.0]), bits=4)
    tensor([ 0.,  2., 15.])
    """
    top = 2**bits - 1
    return _straight_through(torch.floor(values).clamp(0, top), values.clamp(0, top + 1))


def channel_scale(weight: Tensor, bits: int) -> Tensor:
    """(2^(b - 1) - 1) / max |w| of every output channel, through which no gradient flows.

    weight: (O, ...); bits: b, at least 2. Returns (O, 1, ...); finite where all weights are 0.

    >>> channel_scale(torch.tensor([[0.5, -3.5]]), bits=4)
    tensor([[2.]])
    """
    largest = weight.detach().abs().flatten(1).amax(1) + EPSILON
    scale: Tensor = (2 ** (bits - 1) - 1) / largest
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def step_size(values: Tensor, bits: int) -> Tensor:
    """Delta = (max - min) / (2^b - 1): between neighbours of b bits that span the values and 0; no gradient flows.

    values: any shape, one step for all; bits: b, at least 1. Returns (), not negative.

    >>> step_size(torch.tensor([0.5, 3.0, -1.5]), bits=2)
    tensor(1.5000)
    """
    step: Tensor = _span(values) / (2**bits - 1)
    return step


def with_quantization_noise(values: Tensor, draws: Tensor, shares: Tensor, levels: Tensor) -> Tensor:
    """v + sum_b p_b Delta_b u_b: the values with the error of rounding them to b bits, by the share of each width.

    values: v, any shape; draws: u, (n, *that shape), uniform in (-1/2, 1/2); shares: p, (n,); levels: 2^b - 1 of every
    width, (n,). Each noise has mean 0 and variance Delta_b^2 / 12. Returns as values; through the noise no gradient
    flows to them (Shvetsov et al. 2022, arXiv 2208.14839).

    >>> one = torch.ones(1)
    >>> with_quantization_noise(torch.tensor([0.0, 3.0]), torch.tensor([[-0.5, 0.25]]), shares=one, levels=3.0 * one)
    tensor([-0.5000,  3.2500])
    """
    weights = (shares * (_span(values) / levels)).to(values.dtype)
    # One product of a matrix and a vector, forward and backward, however many widths there are.
    return torch.addmv(values.flatten(), draws.flatten(1).t(), weights).view(values.shape)


def _span(values: Tensor) -> Tensor:
    """Of the values and 0, as a number without gradient."""
    low, high = values.detach().aminmax()
    return high.clamp_min(0.0) - low.clamp_max(0.0)


def _straight_through(integers: Tensor, passed: Tensor) -> Tensor:
    """The integers, exactly, with the gradient of `passed`."""
    return integers.detach() + (passed - passed.detach())
