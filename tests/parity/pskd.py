"""PS-KD against the official loss and schedule: pure functions, and a recipe that lives through the epoch before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from free_logits import FreeLogits
from torch import Tensor
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.ps_kd import softened

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.as_tensor(values) for name, values in case.items()}
    alpha = float(case["alpha_t"])
    check_schedule(case)
    check_functions(arrays, alpha)
    check_recipe(arrays, alpha)


def check_schedule(case: Mapping[str, np.ndarray]) -> None:
    """The strength in force in every epoch, as a recipe logs it."""
    epochs, top = int(case["end_epoch"]), float(case["alpha_T"])
    method = tikhon.PSKD(tikhon.linear(0.0, top, by="epoch"))
    recipe = tikhon.Recipe(method)
    model = recipe.prepare(FreeLogits(1, 2), samples=1)
    recipe.attach(torch.optim.SGD(model.parameters()), epochs=epochs)
    seen = []
    for _ in range(epochs):
        seen.append(recipe.log()["ps_kd/alpha"])
        recipe.end_epoch()
    np.testing.assert_allclose(seen, case["alpha_schedule"], rtol=1e-9)
    np.testing.assert_allclose(seen[int(case["epoch"])], case["alpha_t"], rtol=1e-9)


def check_functions(arrays: Mapping[str, Tensor], alpha: float) -> None:
    logits = arrays["logits"].clone().requires_grad_()
    hard = F.one_hot(arrays["labels"], logits.shape[1]).to(logits.dtype)
    targets = softened(hard, arrays["past_predictions"][arrays["index"]], alpha)
    torch.testing.assert_close(targets, arrays["soft_targets"], **CLOSE)
    loss = -(targets * logits.log_softmax(1)).sum(1).mean()
    loss.backward()
    torch.testing.assert_close(loss.detach(), arrays["loss"], **CLOSE)
    torch.testing.assert_close(logits.grad, arrays["grad_logits"], **CLOSE)


def check_recipe(arrays: Mapping[str, Tensor], alpha: float) -> None:
    past = arrays["past_predictions"]
    method = tikhon.PSKD(alpha)
    recipe = tikhon.Recipe(method)
    model = FreeLogits(max(len(past), len(arrays["logits"])), past.shape[1])
    recipe.prepare(model, samples=len(past))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)

    # The epoch before, in which the model predicts what the case remembers.
    rows = model.set(past.clamp_min(1e-300).log())
    recipe.loss(rows, torch.zeros(len(past), dtype=torch.int64), index=torch.arange(len(past))).backward()
    optimizer.step()
    recipe.end_epoch()
    torch.testing.assert_close(method.previous.table, past, **CLOSE)

    optimizer.zero_grad()
    loss = recipe.loss(model.set(arrays["logits"]), arrays["labels"], index=arrays["index"])
    loss.backward()
    gradient = model.logits.grad
    assert gradient is not None
    torch.testing.assert_close(loss.detach(), arrays["loss"], **CLOSE)
    torch.testing.assert_close(gradient[: len(arrays["logits"])], arrays["grad_logits"], **CLOSE)
