"""Does the average of pretrained and fine-tuned weights beat both under shift, and smoothing the plain average?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

CLASSES, WIDTH, CUES = 5, 4, 20
NOISE = 1.5


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """One core feature and 20 spurious ones: each shows, in four noisy numbers, the class, or one drawn at random.

    The core feature always shows the class. In pretraining ten of the others do so in 95% of the samples, in
    fine-tuning the other ten, at test all 20 in 30%; else at random. settings: recipe and learning_rate, of the
    fine-tuning. Measures: metric (accuracy on the test data), validation (accuracy on data like those of fine-tuning).
    """
    generator = torch.Generator().manual_seed(seed_for("spurious", seed))
    prototypes = torch.randn(1 + CUES, CLASSES, WIDTH, generator=generator)
    first, second = ((torch.arange(CUES) // (CUES // 2) == half) * 0.95 for half in (0, 1))
    pretraining = _data(prototypes, 2000, first, generator)
    finetuning, validation = (_data(prototypes, 500, second, generator) for _ in range(2))
    test = _data(prototypes, 2000, torch.full((CUES,), 0.3), generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model: nn.Module = nn.Sequential(nn.Linear((1 + CUES) * WIDTH, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    model, _ = fit(model, Recipe(seed=seed), pretraining, epochs=5, optimizer=_sgd(0.02), seed=seed)
    arm = parse_arm(settings["recipe"])
    model, _ = fit(
        model,
        Recipe(*arm.methods(), seed=seed),
        finetuning,
        epochs=20,
        optimizer=_sgd(settings["learning_rate"]),
        metrics={"validation": lambda trained: _accuracy(trained, validation)},
        keep_best="validation" if arm.early_stopping else None,
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / 20),
    )
    return {"metric": _accuracy(model, test), "validation": _accuracy(model, validation)}


def _data(prototypes: Tensor, count: int, telling: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """telling: (CUES,), with which probability each spurious feature shows the class."""
    y = torch.randint(CLASSES, (count,), generator=generator)
    tells = torch.rand(count, CUES, generator=generator) < telling
    shown = torch.where(tells, y[:, None], torch.randint(CLASSES, (count, CUES), generator=generator))
    x = prototypes[torch.arange(1 + CUES), torch.cat([y[:, None], shown], dim=1)]
    return (x + NOISE * torch.randn(x.shape, generator=generator)).flatten(1), y


def _sgd(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


@torch.no_grad()
def _accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    return accuracy(model(data[0]), data[1])


def rates(recipe: str) -> list[Settings]:
    """Candidates that differ in the learning rate of fine-tuning."""
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.02, 0.05, 0.1)]


study = Study(
    question="Where spurious features no longer tell the class, is the average of weights at least 5 points above both "
    "members, and does smoothing the labels, alone or with MixUp, raise it further?",
    setting="5 classes, 1 core and 20 spurious features; MLP 84-64-5, pretrained on ten of these, tuned on the others",
    run=run,
    arms={
        "pretrained": rates("bang(share=0.0, smoothing=0.0)"),
        "none": rates("early_stopping"),
        "wise_ft": rates("bang(smoothing=0.0)"),
        "bang": rates("bang(smoothing=0.1)"),
        "bang+mixup": rates("bang(smoothing=0.1)+mixup(alpha=0.2)"),
    },
    expectations=[
        Expectation("wise_ft", "none", margin=0.05),
        Expectation("wise_ft", "pretrained", margin=0.05),
        Expectation("bang", "wise_ft"),
        Expectation("bang+mixup", "wise_ft"),
    ],
)
