"""StableMax against the official cross-entropy, by pure functions and by the recipe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from free_logits import FreeLogits

import tikhon
from tikhon.methods.dynamics.stablemax import log_stablemax, s

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.as_tensor(values) for name, values in case.items()}
    logits = arrays["logits"].clone().requires_grad_()
    torch.testing.assert_close(s(logits).detach(), arrays["s"], **CLOSE)
    log_p = log_stablemax(logits)
    torch.testing.assert_close(log_p.detach(), arrays["log_stablemax"], **CLOSE)
    losses = -log_p.gather(1, arrays["labels"][:, None])
    torch.testing.assert_close(losses.detach(), arrays["loss_none"], **CLOSE)
    losses.mean().backward()
    torch.testing.assert_close(logits.grad, arrays["grad_logits"], **CLOSE)

    recipe = tikhon.Recipe(tikhon.StableMax())
    model = FreeLogits(*logits.shape)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters()))
    loss = recipe.loss(model.set(arrays["logits"]), arrays["labels"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), arrays["loss"], **CLOSE)
    torch.testing.assert_close(model.logits.grad, arrays["grad_logits"], **CLOSE)
