"""Does one self-tuning network end where a random search of twenty trainings ends, for a tenth of the arithmetic?"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tikhon.core.fit import batches
from tikhon.core.step import seed_for
from tikhon.data import Task, load_task
from tikhon.math.random import dropped
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study
from tikhon.tuning.augmentations import TunedNoise
from tikhon.tuning.effects import TunedDropout
from tikhon.tuning.hyperparameters import Rate, Scale
from tikhon.tuning.self_tuning import SelfTuningNetwork

SAMPLES = 200
EPOCHS, PATIENCE, BATCH = 120, 60, 50
RATE = 2e-3
START = {"dropout": 0.05, "noise": 0.03}
WARM_UP = 30 * SAMPLES // BATCH
"""Steps of a quarter of the training: before, every weakening of the regularisation looks good."""


class Kept:
    """The epoch of the least validation loss, over all trainings of a run."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.least, self.test = math.inf, (math.inf, math.nan)
        self.epoch = 0

    @torch.no_grad()
    def improved(self, model: nn.Module) -> bool:
        model.eval()
        split, test = self._task.validation, self._task.test
        loss = float(F.cross_entropy(model(split.inputs), split.target))
        better = loss < self.least
        if better:
            output = model(test.inputs)
            self.least, self.test = loss, (float(F.cross_entropy(output, test.target)), accuracy(output, test.target))
        model.train()
        return better


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Find a network by trainings at hyperparameters drawn at random, by one at the start's, or by one that tunes them.

    "untuned" is the self-tuning network that never takes a tuning step: it has the perturbations and the response.
    Measures: log_loss (of the least validation loss), log_flops (of the products of matrices in all training and tuning
    steps), test_loss and metric (cross-entropy and accuracy on test data), validation (minus the validation loss).
    """
    task = load_task("digits", seed=seed, train_size=SAMPLES)
    kept = Kept(task)
    if settings["search"] in ("self", "untuned"):
        flops = _tune(task, kept, seed, tuned=settings["search"] == "self")
    elif settings["search"] == "none":
        flops = _train(task, kept, seed, **START)
    else:
        flops = 0.0
        for trial in range(settings["trials"]):
            drawn = torch.rand(2, generator=torch.Generator().manual_seed(seed_for("trial", seed, trial))).tolist()
            flops += _train(task, kept, seed, dropout=0.9 * drawn[0], noise=10.0 ** (2.0 * drawn[1] - 2.0))
            report((trial + 1) / settings["trials"])
    return {
        "log_loss": math.log(kept.least),
        "validation": -kept.least,
        "test_loss": kept.test[0],
        "metric": kept.test[1],
        "log_flops": math.log(flops),
    }


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )


def _train(task: Task, kept: Kept, seed: int, dropout: float, noise: float) -> float:
    model = network(seed)
    generator = torch.Generator().manual_seed(seed_for("noise", seed, dropout, noise))
    rate = torch.tensor(dropout)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        hidden = x + noise * torch.randn(x.shape, generator=generator)
        for place, layer in enumerate(model):
            hidden = layer(hidden)
            if place in (2, 4):
                hidden = dropped(hidden, rate, generator)
        return F.cross_entropy(hidden, y)

    return _epochs(task, kept, seed, model, loss, lambda: 0.0)


def _tune(task: Task, kept: Kept, seed: int, tuned: bool) -> float:
    model = network(seed)
    effects = [TunedNoise(Scale(START["noise"])), TunedDropout(Rate(START["dropout"], high=0.9), at=("2", "4"))]
    tuner = SelfTuningNetwork(model, effects, warm_up=WARM_UP, every=1, learning_rate=0.06, seed=seed)
    split = task.validation
    rows: list[tuple[Tensor, Tensor]] = []
    flops = 0.0

    def tune() -> float:
        nonlocal rows, flops
        if not (tuned and tuner.due):
            return 0.0
        if not rows:
            rows = [(a, b) for _, a, b in batches(split.inputs, split.target, BATCH, seed, tuner.tunings)]
        batch = rows.pop(0)
        if not flops:  # the first batch is a full one
            flops = _flops(lambda: tuner.tune(*batch))
        else:
            tuner.tune(*batch)
        return flops

    return _epochs(task, kept, seed, model, tuner.loss, tune)


def _epochs(
    task: Task,
    kept: Kept,
    seed: int,
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    follow: Callable[[], float],
) -> float:
    """Train with early stopping; returns the arithmetic, of which `follow` says its own."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    own = Kept(task)
    each, total, waited = 0.0, 0.0, 0

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()

    for epoch in range(EPOCHS):
        for _, x, y in batches(task.train.inputs, task.train.target, BATCH, seed, epoch):
            if each:
                step(x, y)
            else:
                each = _flops(lambda x=x, y=y: step(x, y))  # type: ignore[misc]
            total += each + follow()
        waited = 0 if own.improved(model) else waited + 1
        if waited == PATIENCE:
            break
    if own.least < kept.least:
        kept.least, kept.test = own.least, own.test
    return total


def _flops(step: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


study = Study(
    question="Does one self-tuning network reach the validation loss of a random search of 20 trainings within 2%, for "
    "a tenth of the arithmetic, and less loss than a search of as much arithmetic, and than without tuning steps?",
    setting="digits, 200 samples, MLP 64-128-128-10, Adam, batch 50, at most 120 epochs with a patience of 60; dropout "
    "of both hidden layers in (0, 0.9) and noise on the inputs, searched in (0.01, 1), from 0.05 and 0.03",
    run=run,
    arms={
        "none": [{"search": "none"}],
        "untuned": [{"search": "untuned"}],
        "random_4": [{"search": "random", "trials": 4}],
        "random_20": [{"search": "random", "trials": 20}],
        "self_tuning": [{"search": "self"}],
    },
    expectations=[
        Expectation("self_tuning", "random_20", "log_loss", "lower", margin=-0.02),
        Expectation("self_tuning", "random_20", "log_flops", "lower", margin=math.log(10.0)),
        Expectation("self_tuning", "random_4", "log_loss", "lower"),
        Expectation("self_tuning", "untuned", "log_loss", "lower"),
    ],
)
