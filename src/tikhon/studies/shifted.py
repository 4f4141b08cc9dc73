"""Shifted digits: labelled in three domains that change more and more, tested where they are changed further still."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.catalogue import Listing
from tikhon.core.errors import Diverged
from tikhon.core.fit import fit
from tikhon.core.parameters import select
from tikhon.core.recipe import Recipe
from tikhon.data import Split, Task, build_model, load_task
from tikhon.data.seeds import torch_generator
from tikhon.data.shift import Shift, apply_shift, parse_shift
from tikhon.measures.calibration import expected_calibration_error
from tikhon.studies.arms import Arm, parse_arm
from tikhon.studies.experiment import Report, accuracy, make_optimizer
from tikhon.studies.study import Run, Settings

PARTS = (0.0, 1 / 3, 2 / 3)
"""How much of the test's change a domain of the labelled data has."""

AT_TEST: Mapping[str, Mapping[str, Any]] = {"eata": {"similarity": 0.4}}
"""Methods that adapt a trained network to the test inputs as these come in, with their arguments for ten classes."""
ADAPTATION_RATES = (0.01, 0.03, 0.1, 0.3)
PASSES, BATCH = 6, 64
"""How often the stream brings the test inputs, and how many at once."""

LATE: Mapping[str, float] = {"irm": 1.0, "vrex": 1.0, "fishr": 0.0}
"""Penalties that keep a network from learning where they are strong at once: their strength before START, as in their
papers."""
START = 0.4
"""The share of training after which these penalties act, and epochs are candidates for the best: of every arm alike."""

EXTRA = {"unlabelled": "unlabelled target inputs", "domains": "domains"}
"""What a method may ask for beside the labelled samples, in order: one that takes either is published for the first."""


@dataclass(frozen=True)
class DomainData:
    """What cannot be written in an arm. domains: (samples,), of the training data; unlabelled: training inputs (M, ...)
    as changed as those of the test."""

    domains: Tensor
    unlabelled: Tensor

    def __call__(self, listing: Listing) -> dict[str, Any]:
        """What this method is given of it."""
        name = asks_for(listing)
        return {} if name is None else {name: getattr(self, name)}


STAND_INS = DomainData(torch.arange(len(PARTS)), torch.zeros(1, 1))
"""To make a method without its data, as a look at its arguments does."""


def asks_for(listing: Listing) -> str | None:
    """Which of EXTRA the method takes."""
    taken = inspect.signature(listing.load()).parameters
    return next((name for name in EXTRA if name in taken), None)


def in_words(listing: Listing) -> str:
    """What an arm is given beside the labelled samples; nothing for most."""
    if listing.name in AT_TEST:
        return "test inputs, as they come in"
    return EXTRA.get(asks_for(listing) or "", "")


def late(arm: str, strength: float) -> str:
    """The schedule of one of the penalties that begin late, as an arm has it."""
    return f"stepwise({{0.0: {LATE[arm]:g}, {START:g}: {strength:g}}})"


def network(task: Task) -> nn.Sequential:
    """Two hidden layers of 256 with layer norms, which methods that adapt at the test change.

    Batch norms would see labelled and unlabelled inputs apart in training, and not at the test.
    """
    hidden = (nn.Linear(task.train.inputs[0].numel(), 256), nn.Linear(256, 256))
    layers = [module for linear in hidden for module in (linear, nn.LayerNorm(256), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(256, task.outputs))


def in_domains(task: Task, shift: Shift, seed: int) -> tuple[Task, DomainData]:
    """The task with its training and validation samples in equal parts of all domains, and what methods are given."""
    generator = torch_generator(seed, "domains")
    clean = task.train.inputs
    train, domains = _mixed(task.train, shift, clean, generator)
    validation, _ = _mixed(task.validation, shift, clean, generator)
    unlabelled = apply_shift(shift, clean, clean, generator)
    return replace(task, train=train, validation=validation), DomainData(domains, unlabelled)


def _mixed(split: Split, shift: Shift, clean: Tensor, generator: torch.Generator) -> tuple[Split, Tensor]:
    """The samples in their domains, and these; clean: training inputs, whose deviation is the unit of noise."""
    domains = torch.randperm(len(split), generator=generator) % len(PARTS)
    inputs = split.inputs.clone()
    for number, part in enumerate(PARTS):
        if part > 0.0:
            rows, weaker = domains == number, shift._replace(strength=part * shift.strength)
            inputs[rows] = apply_shift(weaker, split.inputs[rows], clean, generator)
    return Split(inputs, split.target), domains


def shifted(*, task: Mapping[str, Any], model: str, epochs: int, optimizer: str) -> Run:
    """Train the arm `settings["recipe"]` on the domains, and test it beyond them.

    task: arguments of `load_task`, a shift among them; settings: learning_rate and, of methods that adapt at the test,
    adaptation_rate. Measures: metric (accuracy on the test), validation (on held-out samples of the labelled domains),
    train, calibration_error (on the test) and seconds (of training, and of adapting to the test). Of methods that
    adapt, metric, calibration_error and validation are those of a stream, every batch before the step that it leads to.
    """
    return functools.partial(_run, dict(task), model, epochs, optimizer)


def _run(
    arguments: dict[str, Any],
    name: str,
    epochs: int,
    optimizer: str,
    settings: Settings,
    seed: int,
    report: Report,
) -> dict[str, float]:
    task, given = in_domains(load_task(**arguments, seed=seed), parse_shift(arguments["shift"]), seed)
    arm = parse_arm(settings["recipe"], given)
    adapts = any(listing.name in AT_TEST for listing, _ in arm.calls)
    recipe = Recipe(*([] if adapts else arm.methods()), seed=seed)
    epoch = itertools.count()

    def held_out(net: nn.Module) -> float:
        counts = next(epoch) >= START * epochs
        return accuracy(net(task.validation.inputs), task.validation.target) if counts else 0.0

    try:
        model, history = fit(
            build_model(name, task, seed=seed),
            recipe,
            (task.train.inputs, task.train.target),
            epochs=epochs,
            optimizer=make_optimizer({"optimizer": optimizer, "learning_rate": settings["learning_rate"]}),
            metrics={"validation": held_out},
            keep_best="validation" if arm.early_stopping else None,
            seed=seed,
            on_epoch=lambda epoch, _: report((epoch + 1) / epochs),
        )
        model.eval()
        with torch.no_grad():
            train, validation, output = (model(one.inputs) for one in (task.train, task.validation, task.test))
        held, test, seconds = task.validation.target, task.test.target, history.seconds
        if adapts:
            rate = settings["adaptation_rate"]
            validation, held, _ = adapted(model, arm, task.validation, task.train, rate, seed)
            output, test, spent = adapted(model, arm, task.test, task.train, rate, seed)
            seconds += spent
    except Diverged:
        return {"validation": math.nan}
    if not all(bool(one.isfinite().all()) for one in (train, validation, output)):
        return {"validation": math.nan}
    return {
        "metric": accuracy(output, test),
        "validation": accuracy(validation, held),
        "train": accuracy(train, task.train.target),
        "calibration_error": expected_calibration_error(recipe.probabilities(output), test),
        "seconds": seconds,
    }


def adapted(
    trained: nn.Module, arm: Arm, split: Split, source: Split, rate: float, seed: int
) -> tuple[Tensor, Tensor, float]:
    """A copy of the network predicts a stream and adapts to it: outputs (S, K), labels (S,) and the seconds taken.

    source: samples like the training data, from which the methods learn what must be kept; their labels are not read.
    """
    begun = time.perf_counter()
    generator = torch_generator(seed, "stream")
    model = copy.deepcopy(trained).train()
    recipe = Recipe(*arm.methods(), seed=seed)
    recipe.prepare(model)
    norms = [one.leaf for one in select(model, "norms")]
    recipe.attach(optimizer := torch.optim.SGD(norms, lr=rate, momentum=0.9))
    recipe.end_task(source.inputs.split(256))
    outputs, labels = [], []
    for rows in (rows for _ in range(PASSES) for rows in torch.randperm(len(split), generator=generator).split(BATCH)):
        with torch.no_grad():
            outputs.append(model(split.inputs[rows]))
        labels.append(split.target[rows])
        optimizer.zero_grad()
        recipe.loss(split.inputs[rows]).backward()
        optimizer.step()
    return torch.cat(outputs), torch.cat(labels), time.perf_counter() - begun
