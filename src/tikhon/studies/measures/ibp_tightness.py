"""Does the tightness of interval bounds fall with depth and width, and does training on the bounds raise it?"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from tikhon.core.fit import fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.core.strength import linear
from tikhon.data import load_task
from tikhon.measures.ibp_tightness import ibp_tightness
from tikhon.methods.robust.ibp import IBPTraining
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPS, EPOCHS = 0.02, 10


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """A ReLU network of given depth and width on digits, as initialised or trained.

    Measures: log_tightness (mean log10 of the tightness over test samples and outputs), metric (clean test accuracy),
    validation (clean accuracy).
    """
    task = load_task("digits", seed=seed)
    train, validation, test = (split.inputs.flatten(1) for split in (task.train, task.validation, task.test))
    widths = [train.shape[1], *[settings["width"]] * settings["depth"], 10]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    model: nn.Module = nn.Sequential(*layers[:-1])
    if settings["train"]:
        ramp = linear(0.0, EPS, over=(0.0, 0.5))
        methods: list[Method] = [IBPTraining(ramp, valid=(0.0, 1.0))] if settings["train"] == "ibp" else []
        model, _ = fit(
            model,
            Recipe(*methods, seed=seed),
            (train, task.train.target),
            epochs=EPOCHS,
            batch_size=32,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
            seed=seed,
            on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
        )
    tightness = ibp_tightness(model.double(), test.double())
    with torch.no_grad():
        metric = accuracy(model(test.double()), task.test.target)
        held = accuracy(model(validation.double()), task.validation.target)
    return {"log_tightness": float(tightness.log10().mean()), "metric": metric, "validation": held}


def arm(depth: int, width: int, train: str = "") -> list[Settings]:
    return [{"depth": depth, "width": width, "train": train}]


study = Study(
    question="Does tightness fall with each layer and each doubling of width, and do 10 epochs of interval bound "
    "training raise it 5 times above that of plain training, at the price of accuracy?",
    setting="digits in [0, 1], ReLU networks of 1 to 6 hidden layers of 128, or 3 of 32 to 512; trained: 3 of 128",
    run=run,
    arms={
        **{f"depth {depth}": arm(depth, 128) for depth in range(1, 7)},
        **{f"width {width}": arm(3, width) for width in (32, 512)},
        "trained plainly": arm(3, 128, "plain"),
        "trained on bounds": arm(3, 128, "ibp"),
    },
    expectations=[
        *[Expectation(f"depth {depth + 1}", f"depth {depth}", "log_tightness", "lower") for depth in range(1, 6)],
        Expectation("depth 3", "width 32", "log_tightness", "lower"),
        Expectation("width 512", "depth 3", "log_tightness", "lower"),
        Expectation("trained on bounds", "depth 3", "log_tightness", margin=0.7),
        Expectation("trained on bounds", "trained plainly", "log_tightness", margin=0.7),
        Expectation("trained on bounds", "trained plainly", "metric", "lower"),
    ],
)
