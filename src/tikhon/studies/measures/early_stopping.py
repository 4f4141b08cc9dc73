"""Does stopping early keep a network from memorising wrong labels, and is a longer patience worth its epochs?"""

from __future__ import annotations

import torch

from tikhon.core.fit import History, fit
from tikhon.core.recipe import Recipe
from tikhon.data import build_model, load_task
from tikhon.measures.early_stopping import EarlyStopping
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS = 120


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on noisy labels; with a patience, until it is exhausted, and the best epoch on validation data is kept.

    Measures: metric (test accuracy), validation (accuracy on validation data, as noisy, of the model that is kept),
    epochs (how many were trained).
    """
    task = load_task("digits", seed=seed, label_noise=0.4)
    recipe = Recipe(seed=seed)
    patience = settings["patience"]
    rules: list[EarlyStopping] = []

    def ends(epoch: int, history: History) -> bool:
        report((epoch + 1) / EPOCHS)
        if patience is None:
            return False
        if not rules:  # it keeps the model that fit prepared
            rules.append(EarlyStopping(recipe, patience))
        return rules[0].update(history.metrics["validation"][-1])

    model, history = fit(
        build_model("mlp", task, seed=seed),
        recipe,
        (task.train.inputs, task.train.target),
        epochs=EPOCHS,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=0.9),
        metrics={"validation": lambda one: accuracy(one(task.validation.inputs), task.validation.target)},
        keep_best=None if patience is None else "validation",
        seed=seed,
        on_epoch=ends,
    )
    values = history.metrics["validation"]
    model.eval()
    return {
        "metric": accuracy(model(task.test.inputs), task.test.target),
        "validation": values[-1] if patience is None else max(values),
        "epochs": float(len(values)),
    }


def rates(patience: int | None) -> list[Settings]:
    return [{"patience": patience, "learning_rate": rate} for rate in (0.1, 0.05, 0.2)]


study = Study(
    question="With 40% wrong labels, does early stopping end above a full training, and is waiting for 20 epochs "
    "better than waiting for 5?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, at most 120 epochs",
    run=run,
    arms={"none": rates(None), "patience_5": rates(5), "patience_20": rates(20)},
    expectations=[
        Expectation("patience_20", "none"),
        Expectation("patience_20", "none", "epochs", "lower"),
        Expectation("patience_20", "patience_5"),
        Expectation("patience_5", "patience_20", "epochs", "lower"),
    ],
)
