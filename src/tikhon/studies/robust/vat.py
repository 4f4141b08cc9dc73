"""Do unlabelled samples lower the error of a network with few labels, by virtual adversarial training?"""

from __future__ import annotations

import torch

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.data import build_model, load_task
from tikhon.methods.robust.vat import VirtualAdversarialTraining
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

LABELS = 50
EPOCHS = 150


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on 50 labelled digits; the unlabelled ones are all 1,035 of the training split.

    Measures: metric and validation (accuracy).
    """
    task = load_task("digits", seed=seed, train_size=LABELS)
    pool = load_task("digits", seed=seed).train.inputs if settings["arm"] == "vat" else None
    eps = settings.get("eps", 0.0)
    methods = [] if settings["arm"] == "none" else [VirtualAdversarialTraining(eps, unlabelled=pool)]
    rate = settings.get("learning_rate", 0.05)
    model, _ = fit(
        build_model("mlp", task, seed=seed),
        Recipe(*methods, seed=seed),
        (task.train.inputs, task.train.target),
        epochs=EPOCHS,
        batch_size=25,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    model.eval()
    with torch.no_grad():
        return {
            "metric": accuracy(model(task.test.inputs), task.test.target),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
        }


study = Study(
    question="With 50 labels, is a network more accurate with virtual adversarial training on a thousand unlabelled "
    "digits, than without and than with it on the labelled ones alone?",
    setting="digits in [0, 1], 50 labels, MLP 64-256-256-10, 150 epochs of 2 steps",
    run=run,
    arms={
        "none": [{"arm": "none", "learning_rate": rate} for rate in (0.02, 0.05, 0.1)],
        "labelled": [{"arm": "labelled", "eps": eps} for eps in (0.5, 1.0, 2.0)],
        "vat": [{"arm": "vat", "eps": eps} for eps in (0.5, 1.0, 2.0)],
    },
    expectations=[Expectation("vat", "none"), Expectation("vat", "labelled")],
)
