"""Scores of data diet against the official code: by pure functions, and EL2N by the recipe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

import tikhon
from tikhon.math.difficulty import el1n, el2n, grand, max_margin, sum_margin

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def network(arrays: Mapping[str, Tensor]) -> nn.Module:
    """x @ W0 + b0, tanh, @ W1 + b1."""
    layers = []
    for weight, bias in ((arrays["W0"], arrays["b0"]), (arrays["W1"], arrays["b1"])):
        layer = nn.Linear(*weight.shape, dtype=torch.float64)
        layer.load_state_dict({"weight": weight.T, "bias": bias})
        layers.append(layer)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1])


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values).double() for name, values in case.items()}
    model, inputs, labels = network(arrays).eval(), arrays["X"], arrays["Y"].argmax(1)
    with torch.no_grad():
        probabilities = model(inputs).softmax(1)
    found = {
        "el2n": el2n(probabilities, labels),
        "el1n": el1n(probabilities, labels),
        "max_margin": max_margin(probabilities, labels),
        "sum_margin": sum_margin(probabilities, labels),
        "grand": grand(model, inputs, labels, chunk=4),
    }
    for name, scores in found.items():
        torch.testing.assert_close(scores, arrays[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(el2n(probabilities, arrays["Y"]), arrays["el2n"], **CLOSE)
    check_recipe(model.train(), inputs, labels, arrays["el2n"])


def check_recipe(model: nn.Module, inputs: Tensor, labels: Tensor, expected: Tensor) -> None:
    method = tikhon.DataDiet(keep=0.5, score_epochs=1)
    recipe = tikhon.Recipe(method)
    recipe.prepare(model, samples=len(labels))
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.0))
    for index in torch.arange(len(labels)).split(4):
        recipe.loss(inputs[index], labels[index], index=index).backward()
        optimizer.step()
    recipe.end_epoch()
    assert method.memory.table is not None
    torch.testing.assert_close(method.memory.table[:, 0], expected, **CLOSE)
    kept = method.kept()
    assert len(kept) == max(1, round(0.5 * len(labels)))
    assert expected[kept].min() >= np.delete(expected.numpy(), kept.numpy()).max(initial=-np.inf)
