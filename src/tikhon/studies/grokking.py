"""Modular addition: the task on which networks fit at once and generalise late, or never."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Settings

MODULUS = 23
TRAIN_SHARE = 0.8
STEPS = 4000
WIDTH = 200


def tables(
    seed: int, modulus: int = MODULUS
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(inputs, target) for training, validation and test: pairs (a, b) as two one-hot vectors, and a + b mod p."""
    a, b = (one.flatten() for one in torch.meshgrid(torch.arange(modulus), torch.arange(modulus), indexing="ij"))
    inputs = torch.cat([F.one_hot(a, modulus), F.one_hot(b, modulus)], dim=1).float()
    target = (a + b) % modulus
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed_for("pairs", seed)))
    train, held = order[: int(TRAIN_SHARE * len(order))], order[int(TRAIN_SHARE * len(order)) :]
    parts = (train, held[::2], held[1::2])
    return tuple((inputs[part], target[part]) for part in parts)  # type: ignore[return-value]


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train an MLP on all pairs at once, in float32, without weight decay.

    Measures: metric (test accuracy), validation, train, collapsed (share of training samples whose softmax
    cross-entropy is exactly 0 in float32: they no longer teach anything).
    """
    (inputs, target), validation, test = tables(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))  # the initial weights come from the global generator
        model = nn.Sequential(nn.Linear(2 * MODULUS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, MODULUS))
    recipe = Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed)
    recipe.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    recipe.attach(optimizer, steps=STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        recipe.loss(inputs, target).backward()
        optimizer.step()
        if step % 100 == 99:
            report((step + 1) / STEPS)
    with torch.no_grad():
        output = model(inputs)
        return {
            "metric": accuracy(model(test[0]), test[1]),
            "validation": accuracy(model(validation[0]), validation[1]),
            "train": accuracy(output, target),
            "collapsed": float((F.cross_entropy(output, target, reduction="none") == 0).double().mean()),
        }


def rates(recipe: str) -> list[dict[str, object]]:
    """Candidates that differ in the learning rate."""
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.01, 0.03, 0.1)]
