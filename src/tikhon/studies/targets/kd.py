"""With few labels, does a small network learn more from a large teacher's probabilities than from the labels alone?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import build_model, load_task
from tikhon.methods.targets.kd import KnowledgeDistillation
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS = 60
LABELS = 100


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train a network of one hidden layer of 16 on 100 labels, alone or with a teacher: the MLP 64-256-256-10 trained
    on all of the training split. Measures: metric and validation (accuracy)."""
    task = load_task("digits", seed=seed, train_size=LABELS)
    distilled = "temperature" in settings
    methods = [KnowledgeDistillation(_teacher(seed), settings["temperature"])] if distilled else []
    model, _ = fit(
        _student(seed),
        Recipe(*methods, seed=seed),
        (task.train.inputs, task.train.target),
        epochs=EPOCHS,
        batch_size=32,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=0.9),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    model.eval()
    with torch.no_grad():
        return {
            "metric": accuracy(model(task.test.inputs), task.test.target),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
        }


@lru_cache
def _teacher(seed: int) -> nn.Module:
    task = load_task("digits", seed=seed)
    data = (task.train.inputs, task.train.target)
    return fit(build_model("mlp", task, seed=seed), Recipe(seed=seed), data, epochs=EPOCHS, seed=seed)[0]


def _student(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("student", seed))
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def rates(*temperature: float) -> Sequence[Settings]:
    chosen = {"temperature": temperature[0]} if temperature else {}
    return [{"learning_rate": rate, **chosen} for rate in (0.05, 0.02, 0.01)]


study = Study(
    question="With 100 labels, is a network of 16 hidden units more accurate when it learns what a network of 100,000 "
    "weights, trained on all labels, gives to the classes?",
    setting="digits, 100 labels, MLP 64-16-10 of a teacher 64-256-256-10, 60 epochs",
    run=run,
    arms={"none": rates(), "kd": rates(4.0)},
    expectations=[Expectation("kd", "none")],
)
