"""SORSA against the official layer: factors, residual, output, gradients, penalty and merged weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.core.adapters import Adapter
from tikhon.methods.lowrank.sorsa import nonorthonormality, sorsa_factors

CLOSE = {"rtol": 1e-6, "atol": 1e-10}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    weight, scale = arrays["W"], float(case["scale"])
    a, s, b = sorsa_factors(weight, int(case["r"]))
    torch.testing.assert_close((b * s) @ a, (arrays["B"] * arrays["S"]) @ arrays["A"], **CLOSE)
    torch.testing.assert_close(s, arrays["S"], **CLOSE)
    at_start = torch.tensor(float(case["ortho_at_init"]), dtype=torch.float64)
    torch.testing.assert_close(nonorthonormality([a, b.T]), at_start, rtol=0.0, atol=1e-12)
    adapter = Adapter(weight, arrays["A"], arrays["B"], arrays["S"], scale)
    torch.testing.assert_close(adapter.residual, arrays["residual"], **CLOSE)

    leaf = torch.cat([arrays["A1"], arrays["B1"].T, arrays["S1"][:, None]], dim=1).requires_grad_()
    found_a, found_b, _ = adapter.factors(leaf)
    penalty = nonorthonormality([found_a, found_b.T])
    torch.testing.assert_close(penalty.detach(), torch.tensor(float(case["ortho"]), dtype=torch.float64), **CLOSE)
    (gradient,) = torch.autograd.grad(penalty, leaf)
    torch.testing.assert_close(adapter.factors(gradient)[0], arrays["ortho_grad_A"], **CLOSE)
    torch.testing.assert_close(adapter.factors(gradient)[1], arrays["ortho_grad_B"], **CLOSE)

    merged = adapter(leaf)
    torch.testing.assert_close(merged.detach(), arrays["merged"], **CLOSE)
    output = arrays["x"] @ merged.T
    torch.testing.assert_close(output.detach(), arrays["y"], **CLOSE)
    (gradient,) = torch.autograd.grad((output * arrays["cotangent"]).sum(), leaf)
    for found, name in zip(adapter.factors(gradient), ("grad_A", "grad_B", "grad_S"), strict=True):
        torch.testing.assert_close(found, arrays[name], **CLOSE)
