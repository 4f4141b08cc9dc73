"""Latent quantisation and InfoMEC against the official functions: codes, losses, gradients and the three numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.blocks.structure.latent_quant import nearest, quantization_errors, quantized, straight_through
from tikhon.measures.infomec import infomec

CLOSE = {"rtol": 1e-6, "atol": 1e-12}
ESTIMATED = {"rtol": 0.0, "atol": 1e-2}
"""The official estimate with continuous latents adds noise that nobody seeded."""


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(np.atleast_1d(values)) for name, values in case.items()}
    x, values = arrays["x"].clone().requires_grad_(), arrays["values"].clone().requires_grad_()
    assert torch.equal(nearest(x, values), arrays["indices"].reshape(x.shape))
    torch.testing.assert_close(quantized(x, values).detach(), arrays["z_quantized"], **CLOSE)
    z = straight_through(x, values)
    torch.testing.assert_close(z.detach(), arrays["z_hat"], **CLOSE)
    for name, weights in (("quantization_loss", (1.0, 0.0)), ("commitment_loss", (0.0, 1.0))):
        found = quantization_errors(x, values, *weights)
        torch.testing.assert_close(found.detach(), arrays[name].reshape(len(x)), **CLOSE)
    loss = (quantization_errors(x, values, 0.01, 0.02) + z.square().sum(1)).mean()
    torch.testing.assert_close(loss.detach(), arrays["loss"].squeeze(), **CLOSE)
    for found, name in zip(torch.autograd.grad(loss, (x, values)), ("grad_x", "grad_values"), strict=True):
        torch.testing.assert_close(found, arrays[name], **CLOSE)

    discrete = bool(case["discrete_latents"])
    close = CLOSE if discrete else ESTIMATED
    result = infomec(arrays["sources"], arrays["latents"], discrete)
    assert torch.equal(result.active, arrays["info_active_latents"])
    torch.testing.assert_close(result.information, arrays["info_nmi"], equal_nan=True, **close)
    for name, found, allowed in (
        ("infom", result.modularity, close),
        ("infoc", result.compactness, close),
        ("infoe", result.explicitness, CLOSE),
    ):
        official = arrays[f"info_{name}"].squeeze()
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), official, equal_nan=True, **allowed)
