"""Is a network mostly of 4 bits better than a bfloat16 one of the same cost, and does quantising shrink the gap?"""

from __future__ import annotations

import torch
from torch import nn

from tikhon.blocks.quantization.aqt import freeze_bounds, quantize_aqt
from tikhon.core.fit import batches
from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS, FROZEN_AT = 60, 6
"""Of training, and after which the bounds of activations are frozen."""


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train a network of two hidden layers on digits.

    Measures: metric (test accuracy), gap (train less test), validation, cost (multiplications times bits, in
    thousands; unquantised layers are counted as bfloat16).
    """
    task = load_task("digits", seed=seed)
    width = settings["width"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )
    if settings["bits"] == "trained":
        quantize_aqt(model, positive=("1", "3", "5"))
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"], momentum=0.9)
    best, kept = -1.0, model.state_dict()
    for epoch in range(EPOCHS):
        if settings["bits"] == "trained" and epoch == FROZEN_AT:
            freeze_bounds(model)
        model.train()
        for _, x, y in batches(task.train.inputs, task.train.target, 64, seed, epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        if settings["early_stopping"] and (reached := _accuracy(model, task.validation)) > best:
            best, kept = reached, {name: value.clone() for name, value in model.state_dict().items()}
        report((epoch + 1) / EPOCHS)
    if settings["early_stopping"]:
        model.load_state_dict(kept)
    if settings["bits"] == "afterwards":
        quantize_aqt(model, positive=("1", "3", "5")).train()
        for _, x, _ in batches(task.train.inputs, task.train.target, 64, seed, EPOCHS):
            model(x)
        freeze_bounds(model)
    train, validation, test = (_accuracy(model, split) for split in (task.train, task.validation, task.test))
    ends, body = (16, 16) if settings["bits"] is None else (8, 4)
    cost = (ends * (64 + 10) * width + body * width * width) / 1000
    return {"metric": test, "gap": train - test, "validation": validation, "cost": cost}


@torch.no_grad()
def _accuracy(model: nn.Module, split: Split) -> float:
    return float((model.eval()(split.inputs).argmax(1) == split.target).double().mean())


def arm(width: int, bits: str | None = None, early_stopping: bool = False) -> list[Settings]:
    return [
        {"width": width, "bits": bits, "early_stopping": early_stopping, "learning_rate": rate}
        for rate in (0.02, 0.05, 0.1)
    ]


study = Study(
    question="Is a network of 4 bits (8 at its ends) above a bfloat16 network of half the width, which costs the same, "
    "and above one that was quantised after training; is its gap smaller than that of the same network in bfloat16?",
    setting="digits, MLP 64-w-w-10, w = 8 in bfloat16 and w = 16 in 4 bits, 60 epochs, bounds frozen after 6",
    run=run,
    arms={
        "bfloat16": arm(8),
        "early_stopping": arm(8, early_stopping=True),
        "bfloat16, wide": arm(16),
        "quantised afterwards": arm(16, "afterwards"),
        "aqt": arm(16, "trained"),
    },
    expectations=[
        Expectation("aqt", "bfloat16"),
        Expectation("aqt", "quantised afterwards"),
        Expectation("aqt", "bfloat16, wide", "gap", "lower"),
    ],
)
