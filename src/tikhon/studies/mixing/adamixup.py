"""Does learning where to mix spare MixUp the error that it makes where one class lies between another's samples?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, build_model, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

BETWEEN = 0.15
"""Share of the class that lies between the other's two clusters."""


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on three clusters, of which the middle one is a class of its own, and on few digits.

    Measures: clusters, metric (test accuracy on clusters and digits), validation (the mean of the two).
    """
    clusters = _accuracies(_small_network(seed), [_clusters(seed, n) for n in (300, 1000, 4000)], settings, seed)
    report(0.5)
    task = load_task("digits", seed=seed, train_size=300)
    digits = _accuracies(build_model("mlp", task, seed=seed), [task.train, task.validation, task.test], settings, seed)
    report(1.0)
    return {"clusters": clusters[1], "metric": digits[1], "validation": (clusters[0] + digits[0]) / 2}


def _accuracies(model: nn.Module, splits: list[Split], settings: Settings, seed: int) -> tuple[float, float]:
    """Validation and test accuracy of the finished model."""
    train, validation, test = splits
    arm = parse_arm(settings["recipe"])

    def accuracy(split: Split) -> float:
        with torch.no_grad():
            return float((trained(split.inputs).argmax(1) == split.target).float().mean())

    def validated(deployed: nn.Module) -> float:
        return -float(F.cross_entropy(deployed(validation.inputs), validation.target))

    trained, _ = fit(
        model,
        Recipe(*arm.methods(), seed=seed),
        (train.inputs, train.target),
        epochs=80,
        batch_size=64,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=0.9),
        metrics={"validation": validated} if arm.early_stopping else None,
        keep_best="validation" if arm.early_stopping else None,
        seed=seed,
    )
    trained.eval()
    return accuracy(validation), accuracy(test)


def _clusters(seed: int, count: int) -> Split:
    """A cluster of the rare class at 0 between two of the other class at -3 and 3."""
    generator = torch.Generator().manual_seed(seed_for("clusters", seed, count))
    rare = torch.rand(count, generator=generator) < BETWEEN
    side = 6.0 * torch.randint(2, (count,), generator=generator) - 3.0
    inputs = 0.5 * torch.randn(count, 2, generator=generator)
    return Split(inputs + torch.stack([side.where(~rare, 0.0), torch.zeros(count)], dim=1), rare.long())


def _small_network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def arm(recipe: str) -> list[Settings]:
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.02, 0.05, 0.1)]


study = Study(
    question="Is AdaMixUp above MixUp, on clusters by 5 points at least, and on clusters as good as plain training?",
    setting="three clusters in the plane (the middle one, 15%, another class), MLP 2-64-64-2; 300 digits, "
    "MLP 64-256-256-10; 80 epochs",
    run=run,
    arms={
        "none": arm("none"),
        "early_stopping": arm("early_stopping"),
        "mixup": arm("mixup"),
        "adamixup": arm("adamixup"),
    },
    expectations=[
        Expectation("adamixup", "mixup", "clusters", margin=0.05),
        Expectation("adamixup", "mixup"),
        Expectation("adamixup", "none", "clusters", margin=-0.01),
    ],
)
