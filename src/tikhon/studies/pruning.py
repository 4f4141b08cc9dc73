"""Pruning: an MLP on digits is trained, exported and physically pruned; how large and how good is what is left?"""

from __future__ import annotations

import torch
from torch import nn

from tikhon.core.fit import fit
from tikhon.core.pruning import multiply_adds, parameter_count
from tikhon.core.recipe import Recipe
from tikhon.data import build_model, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Settings

EPOCHS = 60


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train and export. Measures: metric and validation (accuracy), and which share of hidden units, of parameters, of
    parameters that are not zero and of multiply-adds the exported network has left: units, parameters, nonzero,
    operations."""
    task = load_task("digits", seed=seed)
    fresh = build_model("mlp", task, seed=seed)
    before = _sizes(fresh, task.test.inputs[:1])
    model, _ = fit(
        fresh,
        Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed),
        (task.train.inputs, task.train.target),
        epochs=EPOCHS,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings.get("learning_rate", 0.1), momentum=0.9),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    model.eval()
    after = _sizes(model, task.test.inputs[:1])
    with torch.no_grad():
        return {
            "metric": accuracy(model(task.test.inputs), task.test.target),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
            **{name: after[name] / before[name] for name in before},
        }


def _sizes(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return {
        "units": sum(layer.out_features for layer in layers[:-1]),
        "parameters": parameter_count(model),
        "nonzero": sum(int(one.count_nonzero()) for one in model.parameters()),
        "operations": multiply_adds(model, example),
    }
