"""REPA against the official loss: the interpolant, the denoising loss and the alignment with its gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.methods.generative.repa import interpolant, misalignment

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    x, t = arrays["x"], arrays["t"]
    noisy, velocity = interpolant(x, arrays["noise"], t, str(case["path_type"]))  # type: ignore[arg-type]
    torch.testing.assert_close(noisy, arrays["model_input"], **CLOSE)
    predicted = torch.einsum("dc,bchw->bdhw", arrays["model_matrix"], noisy) * (1.0 + t.reshape(-1, 1, 1, 1))
    losses = (predicted - velocity).square().flatten(1).mean(1)
    torch.testing.assert_close(losses, arrays["denoising_loss"], **CLOSE)
    projected = arrays["zs_tilde"].clone().requires_grad_()
    encoders = zip(projected, arrays["zs"], strict=True)
    loss = torch.stack([misalignment(one, features).mean() for one, features in encoders]).mean()
    torch.testing.assert_close(loss.detach(), torch.tensor(float(case["proj_loss"]), dtype=torch.float64), **CLOSE)
    (gradient,) = torch.autograd.grad(loss, projected)
    torch.testing.assert_close(gradient, arrays["grad_zs_tilde"], **CLOSE)
