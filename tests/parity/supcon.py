"""Supervised contrast against the official loss: its mean over all views of all samples, and its gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.math.variational import supervised_contrast

CLOSE = {"rtol": 1e-6, "atol": 1e-10}


def check(case: Mapping[str, np.ndarray]) -> None:
    features = torch.from_numpy(case["features"]).requires_grad_()  # (B, V, D), of length 1
    labels = torch.from_numpy(case["labels"])
    temperature, base = float(case["temperature"]), float(case["base_temperature"])
    for name, classes in (("supcon", labels), ("simclr", torch.arange(len(labels)))):
        rows, of = features.flatten(0, 1), classes.repeat_interleave(features.shape[1])
        loss = temperature / base * supervised_contrast(rows, of, temperature).mean()
        torch.testing.assert_close(loss.detach(), torch.tensor(float(case[name]), dtype=loss.dtype), **CLOSE)
        (gradient,) = torch.autograd.grad(loss, features)
        official = torch.from_numpy(case[f"grad_{name}"])
        # Here features are brought to length 1 once more, which takes the part along them out of the gradient.
        along = (official * features.detach()).sum(-1, keepdim=True) * features.detach()
        torch.testing.assert_close(gradient, official - along, **CLOSE)
