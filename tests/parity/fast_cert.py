"""Fast certified training against the official regularisers: values and gradients at given bounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tikhon.methods.robust.ibp import excess_width, relu_imbalance

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    layers, tolerance = range(int(case["n_layers"])), float(case["tol"])
    bounds = [
        [torch.from_numpy(case[f"{side}{k}"]).clone().requires_grad_() for k in layers] for side in ("lower", "upper")
    ]
    width = torch.from_numpy(case["in_upper"] - case["in_lower"]).mean() / 2
    pairs = list(zip(*bounds, strict=True))
    parts = {
        "tightness": excess_width(width, [(upper - lower).mean() / 2 for lower, upper in pairs], tolerance),
        "relu": torch.stack([relu_imbalance(lower, upper, tolerance) for lower, upper in pairs]).mean(),
        "std": torch.stack([_narrowness(lower, upper, tolerance) for lower, upper in pairs]).mean(),
    }
    for name, value in parts.items():
        torch.testing.assert_close(value.item(), float(case[f"L_{name}"]), **CLOSE)
    asked = str(case["objectives"])
    strength = float(case["reg_lambda"]) * (1.0 - float(case["eps_fraction"]))
    loss = strength * torch.stack([value for name, value in parts.items() if name in asked]).sum()
    torch.testing.assert_close(loss.item(), float(case["loss"]), **CLOSE)
    found = torch.autograd.grad(loss, [one for side in bounds for one in side], allow_unused=True)
    names = [f"grad_{side}{k}" for side in ("lower", "upper") for k in layers]
    for gradient, name in zip(found, names, strict=True):
        expected = torch.from_numpy(case[name])
        torch.testing.assert_close(torch.zeros_like(expected) if gradient is None else gradient, expected, **CLOSE)


def _narrowness(lower: Tensor, upper: Tensor, tolerance: float) -> Tensor:
    """The official code's third objective, which the paper does not have."""
    return (tolerance - ((upper + lower) / 2).std()).relu() / tolerance
