"""Do optimised features vary less within classes than those they are held to, and do networks show the same?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.data import build_model, load_task
from tikhon.measures.neural_collapse import collapsed_features, variability
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

WEIGHT_STRENGTH = 0.005
EPOCHS = 60


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Features of the first hidden layer of a network trained on digits are H_0; then they are optimised.

    Measures: nc1 of the features, validation (accuracy of the network; it is the same for every arm).
    """
    task = load_task("digits", seed=seed)
    model, _ = fit(
        build_model("mlp", task, seed=seed),
        Recipe(seed=seed),
        (task.train.inputs, task.train.target),
        epochs=EPOCHS,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    model.eval()
    layers = _features(model, task.train.inputs)
    given, labels = layers[0].double(), task.train.target
    features = layers[-1].double() if settings["features"] == "last layer" else given
    if isinstance(settings["features"], float):
        features, _ = collapsed_features(given, labels, 10, settings["features"], WEIGHT_STRENGTH, rounds=100)
    with torch.no_grad():
        validation = accuracy(model(task.validation.inputs), task.validation.target)
    return {"nc1": float(variability(features, labels, 10)), "validation": validation}


@torch.no_grad()
def _features(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """What every linear layer but the first reads."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: found.append(args[0]))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return found[1:]


study = Study(
    question="Is the variability within classes of optimised features below that of the features they are held to, the "
    "more so the less they are held; and lower in a network's last hidden layer than in its first?",
    setting="digits, MLP 64-256-256-10, 60 epochs; H_0 is what the first hidden layer gives",
    run=run,
    arms={
        "given": [{"features": "first layer"}],
        "held": [{"features": 1e-2}],
        "loose": [{"features": 1e-4}],
        "last": [{"features": "last layer"}],
    },
    expectations=[
        Expectation("held", "given", "nc1", "lower"),
        Expectation("loose", "held", "nc1", "lower"),
        Expectation("last", "given", "nc1", "lower"),
    ],
)
