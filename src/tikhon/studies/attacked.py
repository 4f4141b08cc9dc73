"""Digits under attack: how studies of robust training train and measure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import load_task
from tikhon.math.attacks import Norm, projected_ascent
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Settings

RADIUS = 0.1  # of pixels in [0, 1]
EPOCHS = 20
WIDTHS = (64, 128, 128, 10)
SETTING = "digits in [0, 1], MLP 64-128-128-10, 20 epochs; attack: 40 steps of projected gradient ascent, radius 0.1"


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train the arm `settings["recipe"]`.

    Measures: metric and clean_validation (accuracy), robust and validation (accuracy under attack, of test and
    validation split), noisy (test accuracy under Gaussian noise of deviation 0.3), train (robust accuracy on the
    training split).
    """
    task = load_task("digits", seed=seed)
    images = {name: getattr(task, name).inputs.flatten(1) for name in ("train", "validation", "test")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        layers = [layer for pair in pairwise(WIDTHS) for layer in (nn.Linear(*pair), nn.ReLU())]
    model, _ = fit(
        nn.Sequential(*layers[:-1]),
        Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed),
        (images["train"], task.train.target),
        epochs=EPOCHS,
        batch_size=128,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings.get("learning_rate", 0.1), momentum=0.9),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    noise = torch.randn(images["test"].shape, generator=torch.Generator().manual_seed(seed_for("noise", seed)))
    with torch.no_grad():
        return {
            "metric": accuracy(model(images["test"]), task.test.target),
            "clean_validation": accuracy(model(images["validation"]), task.validation.target),
            "robust": robust_accuracy(model, images["test"], task.test.target),
            "validation": robust_accuracy(model, images["validation"], task.validation.target),
            "noisy": accuracy(model(images["test"] + 0.3 * noise), task.test.target),
            "train": robust_accuracy(model, images["train"], task.train.target),
        }


def robust_accuracy(
    model: nn.Module, inputs: Tensor, labels: Tensor, radius: float = RADIUS, norm: Norm = "inf", steps: int = 40
) -> float:
    """Accuracy on the inputs that projected gradient ascent finds, from the inputs themselves, in [0, 1]."""
    found = projected_ascent(
        lambda x: F.cross_entropy(model(x), labels, reduction="none"),
        inputs,
        torch.zeros_like(inputs),
        radius,
        2.5 * radius / steps,
        steps,
        norm,
        (0.0, 1.0),
    )
    with torch.no_grad():
        return accuracy(model(found), labels)


def rates(recipe: str, given: Sequence[float] = (0.05, 0.1)) -> list[dict[str, object]]:
    """Candidates that differ in their learning rate."""
    return [{"recipe": recipe, "learning_rate": rate} for rate in given]
