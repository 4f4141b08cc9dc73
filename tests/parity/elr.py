"""ELR against the official loss: memory after each step, loss and gradient, by pure functions and by the recipe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from free_logits import FreeLogits
from torch import Tensor
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.elr import elr_penalty, updated_memory

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    momentum, strength = float(case["beta"]), float(case["lam"])
    samples, classes = int(case["num_examp"]), int(case["num_classes"])
    check_functions(arrays, momentum, strength, torch.zeros(samples, classes, dtype=torch.float64))
    check_recipe(arrays, momentum, strength, samples)


def check_functions(arrays: Mapping[str, Tensor], momentum: float, strength: float, memory: Tensor) -> None:
    for t, index in enumerate(arrays["index"]):
        logits = arrays["logits"][t].clone().requires_grad_()
        probabilities = logits.softmax(1)
        memory[index] = updated_memory(memory[index], probabilities.detach(), momentum)
        task = F.cross_entropy(logits, arrays["labels"][t])
        loss = task + strength * elr_penalty(probabilities, memory[index]).mean()
        loss.backward()
        agree(arrays, t, memory, loss, logits.grad)


def check_recipe(arrays: Mapping[str, Tensor], momentum: float, strength: float, samples: int) -> None:
    method = tikhon.ELR(strength=strength, momentum=momentum)
    recipe = tikhon.Recipe(method)
    model = FreeLogits(*arrays["logits"][0].shape)
    recipe.prepare(model, samples=samples)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    for t, index in enumerate(arrays["index"]):
        optimizer.zero_grad()
        loss = recipe.loss(model.set(arrays["logits"][t]), arrays["labels"][t], index=index)
        loss.backward()
        optimizer.step()
        agree(arrays, t, method.memory.table, loss, model.logits.grad)


def agree(arrays: Mapping[str, Tensor], t: int, memory: Tensor | None, loss: Tensor, gradient: Tensor | None) -> None:
    torch.testing.assert_close(memory, arrays["target_after"][t], **CLOSE)
    torch.testing.assert_close(loss.detach(), arrays["loss"][t], **CLOSE)
    torch.testing.assert_close(gradient, arrays["grad_logits"][t], **CLOSE)
