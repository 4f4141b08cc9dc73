"""Pretraining without labels: how well a linear classifier of a few labels does on features learned without any."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import load_task
from tikhon.data.splits import draw
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Settings

LABELS, FEATURES = 50, 128
EPOCHS, BATCH = 60, 256
SETTING = (
    "digits, 1,035 without labels and 50 with; MLP 64-128-128, projector 128-128-128, 60 epochs of Adam on two views; "
    "plain: the same network and views, 300 steps on the 50 labels"
)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Learn features of all training digits without labels, then a linear classifier of them from 50 labels; or, with
    the recipe "none", the network and its classifier from the 50 labels alone, in random views.

    settings: recipe, learning_rate, of Adam. Measures: metric and validation (accuracy).
    """
    task = load_task("digits", seed=seed)
    rows, _ = draw(task.train.target, LABELS, torch.Generator().manual_seed(seed_for("labels", seed)))
    few, labels = task.train.inputs[rows], task.train.target[rows]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        )
        projector = nn.Sequential(nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, FEATURES))
        head = nn.Linear(128, 10)
    noise = torch.Generator().manual_seed(seed_for("views", seed))
    methods = parse_arm(settings["recipe"]).methods()
    recipe = Recipe(*methods, seed=seed)
    model = recipe.prepare(nn.Sequential(encoder, projector if methods else head))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    steps = EPOCHS * (len(task.train.target) // BATCH) if methods else 300
    recipe.attach(optimizer, steps=steps)
    for step in range(steps):
        optimizer.zero_grad()
        if methods:
            x = task.train.inputs[torch.randperm(len(task.train.target), generator=noise)[:BATCH]]
            loss = recipe.loss(torch.cat([shifted_view(x, noise), shifted_view(x, noise)]))
        else:
            loss = recipe.loss(shifted_view(few, noise), labels)
        loss.backward()
        optimizer.step()
        report((step + 1) / steps)
    recipe.detach()
    encoder.eval()
    if methods:
        head = _probe(encoder, head, few, labels, seed)
    with torch.no_grad():
        return {
            "metric": accuracy(head(encoder(task.test.inputs)), task.test.target),
            "validation": accuracy(head(encoder(task.validation.inputs)), task.validation.target),
        }


def _probe(encoder: nn.Module, head: nn.Linear, inputs: Tensor, labels: Tensor, seed: int) -> nn.Linear:
    """The linear classifier of fixed features."""
    with torch.no_grad():
        features = encoder(inputs)
    trained, _ = fit(
        head,
        Recipe(seed=seed),
        (features, labels),
        epochs=200,
        batch_size=LABELS,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        seed=seed,
    )
    assert isinstance(trained, nn.Linear)
    return trained


def shifted_view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 1, 8, 8) moved by up to a pixel each way, darker or brighter, and with noise."""
    moved = torch.randint(3, (len(x), 2), generator=generator)
    rows, columns = (moved[:, axis, None] + torch.arange(8) for axis in (0, 1))
    crops = F.pad(x, (1, 1, 1, 1))[torch.arange(len(x))[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    brightness = 0.7 + 0.6 * torch.rand(len(x), 1, 1, generator=generator)
    return (crops * brightness + 0.1 * torch.randn(crops.shape, generator=generator))[:, None]


def rates(recipe: str) -> list[Settings]:
    """Candidates that differ in the learning rate."""
    return [{"recipe": recipe, "learning_rate": rate} for rate in (1e-3, 3e-4, 3e-3)]
