"""Does the group envelope halve a network's units at no loss of accuracy?"""

from __future__ import annotations

import torch
from torch import nn

from tikhon.core.fit import fit
from tikhon.core.pruning import parameter_count
from tikhon.core.recipe import Recipe
from tikhon.data import build_model, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study, plain, recipes

EPOCHS = 60


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train and export. Measures: metric and validation (accuracy), units (share of hidden units that are left in the
    exported network), parameters (share of parameters)."""
    task = load_task("digits", seed=seed)
    fresh = build_model("mlp", task, seed=seed)
    units, parameters = _hidden_units(fresh), parameter_count(fresh)
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
    with torch.no_grad():
        return {
            "metric": accuracy(model(task.test.inputs), task.test.target),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
            "units": _hidden_units(model) / units,
            "parameters": parameter_count(model) / parameters,
        }


def _hidden_units(model: nn.Module) -> int:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return sum(layer.out_features for layer in layers[:-1])


study = Study(
    question="Asked for half of the units, does training leave at most 55%, at a loss of at most one point?",
    setting="digits, MLP 64-256-256-10, 60 epochs, exported and physically pruned",
    run=run,
    arms={
        "none": plain(3),
        "wgsef": recipes("wgsef(strength=0.05)", "wgsef(strength=0.1)", "wgsef(strength=0.2)"),
    },
    expectations=[
        Expectation("wgsef", "none", "units", "lower", margin=0.45),
        Expectation("wgsef", "none", margin=-0.01),
    ],
)
