"""Do codes of wider networks collide less and sort classes better, and do random labels spoil them?"""

from __future__ import annotations

import torch
from torch import nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import load_task
from tikhon.measures.activation_hash import activation_hash
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS = 40


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """A network with one hidden layer on digits; its codes are judged by the right labels, whatever it was trained on.

    Measures: redundancy and test_redundancy, kmeans, knn and logistic (accuracies on test codes), metric and
    validation (the network's own accuracy).
    """
    task = load_task("digits", seed=seed, label_noise=settings.get("noise", 0.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model: nn.Module = nn.Sequential(
            nn.Flatten(), nn.Linear(64, settings["width"]), nn.ReLU(), nn.Linear(settings["width"], 10)
        )
    if settings.get("train", True):
        model, _ = fit(
            model,
            Recipe(seed=seed),
            (task.train.inputs, task.train.target),
            epochs=EPOCHS,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
            seed=seed,
            on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
        )
    found = activation_hash(model, task.train.inputs, task.clean_target, task.test.inputs, task.test.target, seed=seed)
    model.eval()
    with torch.no_grad():
        return {
            "redundancy": found.redundancy,
            "test_redundancy": found.test_redundancy,
            "kmeans": found.test_kmeans,
            "knn": found.knn,
            "logistic": found.logistic,
            "metric": accuracy(model(task.test.inputs), task.test.target),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
        }


study = Study(
    question="From width 4 to 128, do codes stop colliding and do nearest neighbours on them get better; are codes "
    "after training better than before, and codes learned from random labels worse?",
    setting="digits, MLP 64-width-10, 40 epochs; codes judged by the right labels",
    run=run,
    arms={
        **{f"width {width}": [{"width": width}] for width in (4, 16, 128)},
        "untrained 128": [{"width": 128, "train": False}],
        "random labels 128": [{"width": 128, "noise": 0.9}],
    },
    expectations=[
        Expectation("width 16", "width 4", "redundancy", "lower"),
        Expectation("width 128", "width 16", "redundancy", "lower", margin=0.5),
        Expectation("width 16", "width 4", "knn", margin=0.1),
        Expectation("width 128", "width 16", "knn", margin=0.1),
        Expectation("width 128", "width 16", "kmeans"),
        Expectation("width 128", "untrained 128", "knn"),
        Expectation("random labels 128", "width 128", "knn", "lower"),
        Expectation("random labels 128", "width 128", "logistic", "lower"),
    ],
)
