"""Orthogonal convolutions against the official distances and their gradients, by pure functions and by the recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

import tikhon
from tikhon.methods.weights.orth_conv import conv_orth_dist, deconv_orth_dist, orth_dist

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    kernel, stride = torch.from_numpy(case["kernel"]), int(case["stride"])
    for name in case:
        distance = distance_called(name, stride, kernel.shape[-1])
        if distance is not None:
            check_function(distance, kernel, case[name], case.get(f"grad_{name}"))
    full = "deconv_orth_dist_s1p_k-1"
    if full in case:
        check_recipe(kernel, float(case[full]), torch.from_numpy(case[f"grad_{full}"]))


def distance_called(name: str, stride: int, side: int) -> Callable[[Tensor], Tensor] | None:
    if name == "conv_orth_dist":
        return lambda kernel: conv_orth_dist(kernel, stride)
    if name == "orth_dist":
        return orth_dist
    match = re.fullmatch(r"deconv_orth_dist_s(\d+)p(_k-1|\d+)", name)
    if match is None:
        return None
    own_stride, padding = int(match[1]), side - 1 if match[2] == "_k-1" else int(match[2])
    return lambda kernel: deconv_orth_dist(kernel, own_stride, padding)


def check_function(
    distance: Callable[[Tensor], Tensor], kernel: Tensor, value: np.ndarray, gradient: np.ndarray | None
) -> None:
    kernel = kernel.clone().requires_grad_()
    found = distance(kernel)
    found.backward()
    torch.testing.assert_close(found.detach(), torch.tensor(float(value), dtype=torch.float64), **CLOSE)
    if gradient is not None:
        torch.testing.assert_close(kernel.grad, torch.from_numpy(gradient), **CLOSE)


def check_recipe(kernel: Tensor, distance: float, gradient: Tensor) -> None:
    """At stride 1 the method's penalty is the official distance squared, less the paper's constant."""
    outputs, inputs, *sides = kernel.shape
    model = nn.Sequential(nn.Conv2d(inputs, outputs, sides, bias=False, dtype=torch.float64), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(kernel)
    recipe = tikhon.Recipe(tikhon.OrthogonalConv(strength=0.5), base=lambda output, target: 0.0 * output.sum(1))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    recipe.attach(optimizer)
    loss = recipe.loss(torch.zeros(1, inputs, *sides, dtype=torch.float64), torch.zeros(1))
    loss.backward()
    optimizer.step()
    expected = 0.5 * (distance**2 - max(0, outputs - inputs))
    torch.testing.assert_close(loss.detach(), torch.tensor(expected, dtype=torch.float64), **CLOSE)
    moved = kernel - model[0].weight.detach()
    torch.testing.assert_close(moved, distance * gradient, rtol=1e-6, atol=1e-12)
