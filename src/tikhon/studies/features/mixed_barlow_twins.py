"""Do mixed samples keep Barlow Twins' features from overfitting in long training on few samples?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.methods.features.mixed_barlow_twins import MixedBarlowTwins
from tikhon.studies.experiment import Report
from tikhon.studies.pretraining import shifted_view
from tikhon.studies.study import Expectation, Settings, Study

SAMPLES, EPOCHS, LOOKS = 100, 600, 30
FEATURES = 128
NEIGHBOURS = 5


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Learn features of a few digits without their labels; look every 30 epochs how well neighbours tell the class.

    settings: redundancy, mixing; keep_best, whether the features are those of the look that was best in validation.
    Measures: metric and validation (accuracy of the 5 nearest training digits by cosine), drop (from the best look at
    the test data to the last).
    """
    task = load_task("digits", seed=seed, train_size=SAMPLES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        )
        projector = nn.Sequential(nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, FEATURES))
    recipe = Recipe(MixedBarlowTwins(settings["redundancy"], settings["mixing"]), seed=seed)
    model = recipe.prepare(nn.Sequential(encoder, projector))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-6)
    recipe.attach(optimizer, epochs=EPOCHS)
    noise = torch.Generator().manual_seed(seed_for("views", seed))
    looks = []
    for epoch in range(EPOCHS):
        x = task.train.inputs
        optimizer.zero_grad()
        recipe.loss(torch.cat([shifted_view(x, noise), shifted_view(x, noise)])).backward()
        optimizer.step()
        recipe.end_epoch()
        if (epoch + 1) % LOOKS == 0:
            looks.append([_accuracy(encoder, task.train, split) for split in (task.validation, task.test)])
        report((epoch + 1) / EPOCHS)
    chosen = max(looks, key=lambda look: look[0]) if settings["keep_best"] else looks[-1]
    return {"metric": chosen[1], "validation": chosen[0], "drop": max(look[1] for look in looks) - looks[-1][1]}


@torch.no_grad()
def _accuracy(encoder: nn.Module, train: Split, split: Split) -> float:
    """How often most of the nearest training samples have the right class."""
    encoder.eval()
    bank, asked = (F.normalize(encoder(one.inputs), dim=1) for one in (train, split))
    encoder.train()
    votes = F.one_hot(train.target[(asked @ bank.T).topk(NEIGHBOURS, dim=1).indices]).sum(1)
    return float((votes.argmax(1) == split.target).double().mean())


def candidates(*pairs: tuple[float, float], keep_best: bool = False) -> list[Settings]:
    """Candidates by redundancy and mixing."""
    return [{"redundancy": redundancy, "mixing": mixing, "keep_best": keep_best} for redundancy, mixing in pairs]


study = Study(
    question="In long training, do features with mixed samples tell more than those of plain Barlow Twins, at its end "
    "and where it would best have stopped, and do they lose less from their best?",
    setting="100 digits without labels, MLP 64-128-128, projector 128-128-128, 600 epochs of Adam, 5 neighbours",
    run=run,
    arms={
        "barlow_twins": candidates((1 / FEATURES, 0.0), (0.03, 0.0)),
        "early_stopping": candidates((1 / FEATURES, 0.0), (0.03, 0.0), keep_best=True),
        "mixed_barlow_twins": candidates((1 / FEATURES, 4.0), (0.03, 4.0)),
    },
    expectations=[
        Expectation("mixed_barlow_twins", "barlow_twins"),
        Expectation("mixed_barlow_twins", "barlow_twins", "drop", "lower"),
        Expectation("mixed_barlow_twins", "early_stopping"),
    ],
)
