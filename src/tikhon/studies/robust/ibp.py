"""Does interval bound training certify digits, and do initialisation and regularisers make its short ramp work?"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.core.strength import linear
from tikhon.data import load_task
from tikhon.measures.ibp_tightness import certified_accuracy
from tikhon.methods.robust.ibp import IBPTraining, ibp_initialise
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPS = 0.05  # of pixels in [0, 1]
VALID = (0.0, 1.0)
EPOCHS, RAMP = 20, 0.25  # eps rises during the first five epochs
WIDTHS = (64, 128, 128, 128, 10)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """A network of three hidden layers on digits.

    Measures: certified (share of test samples certified within eps), metric (clean test accuracy), validation
    (certified share of the validation split, of plain training its clean accuracy).
    """
    task = load_task("digits", seed=seed)
    images = {name: getattr(task, name).inputs.flatten(1) for name in ("train", "validation", "test")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        layers = [layer for pair in pairwise(WIDTHS) for layer in (nn.Linear(*pair), nn.ReLU())]
    model: nn.Module = nn.Sequential(*layers[:-1])
    method = settings["method"]
    if method == "ibp":
        ibp_initialise(model, torch.Generator().manual_seed(seed_for("initialise", seed)))
    regularisation = 0.5 if method == "ibp" else 0.0
    ibp = IBPTraining(linear(0.0, EPS, over=(0.0, RAMP)), regularisation=regularisation, valid=VALID)
    model, _ = fit(
        model,
        Recipe(*([] if method == "none" else [ibp]), seed=seed),
        (images["train"], task.train.target),
        epochs=EPOCHS,
        batch_size=32,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    with torch.no_grad():
        clean = accuracy(model(images["validation"]), task.validation.target)
        metric = accuracy(model(images["test"]), task.test.target)
    held = certified_accuracy(model, images["validation"], task.validation.target, EPS, VALID)
    return {
        "certified": certified_accuracy(model, images["test"], task.test.target, EPS, VALID),
        "metric": metric,
        "validation": clean if method == "none" else held,
    }


study = Study(
    question="Is the certified share of digits above that of plain training, and with initialisation and regularisers "
    "5 points above that of interval bound training without them?",
    setting="digits in [0, 1], MLP 64-128-128-128-10, eps 0.05 after a ramp of 5 epochs of 20",
    run=run,
    arms={
        method: [{"method": method, "learning_rate": rate} for rate in (5e-4, 2e-3)]
        for method in ("none", "plain_ibp", "ibp")
    },
    expectations=[
        Expectation("ibp", "none", "certified"),
        Expectation("ibp", "plain_ibp", "certified", margin=0.05),
    ],
)
