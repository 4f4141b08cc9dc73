"""PiSSA against peft, in its float32: the product of the factors, the residual and the output, also by the recipe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

import tikhon
from tikhon.core.adapters import adapter_of
from tikhon.core.parameters import select
from tikhon.methods.lowrank.pissa import pissa_factors

CLOSE = {"rtol": 1e-5, "atol": 2e-6}  # peft computes in float32 only


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    rank, alpha, scale = int(case["r"]), float(case["lora_alpha"]), float(case["scaling"])
    a, b = pissa_factors(arrays["W"], rank, scale)
    torch.testing.assert_close(b @ a, arrays["B"] @ arrays["A"], **CLOSE)
    torch.testing.assert_close(arrays["W"] - scale * (b @ a), arrays["W_res"], **CLOSE)
    layer = nn.Linear(arrays["W"].shape[1], arrays["W"].shape[0])
    with torch.no_grad():
        layer.weight.copy_(arrays["W"])
        layer.bias.copy_(arrays["bias"])
    model = tikhon.Recipe(tikhon.PiSSA(rank, alpha)).prepare(nn.Sequential(layer))
    torch.testing.assert_close(model(arrays["x"]).detach(), arrays["y"], **CLOSE)
    torch.testing.assert_close(adapter_of(select(model)[0]).residual, arrays["W_res"], **CLOSE)
