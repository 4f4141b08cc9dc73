"""Does a transformer that sees a random quarter of the sequence while it trains generalise better than a dense one?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.blocks.stochastic.subsampled_attention import SubsampledAttention, subsampled_outputs
from tikhon.core.fit import batches
from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS, DENSE_EPOCHS = 80, 8
"""Of training, and of these the last, in which attention is dense again."""
WIDTH, HEADS, LAYERS = 32, 4, 2
PATCHES = 16


class Transformer(nn.Module):
    """A digit as a sequence of 16 patches of 2x2 pixels, two layers, the mean of the tokens."""

    def __init__(self, keep: float, spread: float | None) -> None:
        super().__init__()
        self.embed = nn.Linear(4, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(PATCHES, WIDTH))
        self.attention = nn.ModuleList(SubsampledAttention(WIDTH, HEADS, keep, spread) for _ in range(LAYERS))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
            for _ in range(LAYERS)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(F.pixel_unshuffle(images, 2).flatten(2).mT) + self.places
        for norm, attention, network in zip(self.norms, self.attention, self.networks, strict=True):
            tokens = tokens + attention(norm(tokens))
            tokens = tokens + network(tokens)
        return self.head(tokens.mean(1))  # type: ignore[no-any-return]


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on 400 digits, the last tenth of the epochs densely.

    Measures: metric (test accuracy of the dense network), gap (train less test), ensemble (of eight subsampled passes;
    of a network that was trained densely the one pass there is), validation.
    """
    task = load_task("digits", seed=seed, train_size=400)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = Transformer(settings["keep"], settings["spread"])
        blocks = [module for module in model.modules() if isinstance(module, SubsampledAttention)]
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"])
        best = (-1.0, model.state_dict())
        for epoch in range(EPOCHS):
            for block in blocks:
                block.keep = settings["keep"] if epoch < EPOCHS - DENSE_EPOCHS else 1.0
            model.train()
            for _, x, y in batches(task.train.inputs, task.train.target, 64, seed, epoch):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
            model.eval()
            if settings["early_stopping"]:
                reached = _accuracy(model(task.validation.inputs).detach(), task.validation)
                if reached > best[0]:
                    best = reached, {name: value.clone() for name, value in model.state_dict().items()}
            report((epoch + 1) / EPOCHS)
        if settings["early_stopping"]:
            model.load_state_dict(best[1])
        with torch.no_grad():
            train, validation, test = (
                _accuracy(model(split.inputs), split) for split in (task.train, task.validation, task.test)
            )
        for block in blocks:
            block.keep = settings["keep"]
        ensemble = subsampled_outputs(model, task.test.inputs).softmax(-1).mean(0)
    return {
        "metric": test,
        "gap": train - test,
        "ensemble": _accuracy(ensemble, task.test),
        "validation": validation,
    }


def _accuracy(scores: Tensor, split: Split) -> float:
    return float((scores.argmax(1) == split.target).double().mean())


def arm(keep: float, spread: float | None = None, early_stopping: bool = False) -> list[Settings]:
    return [
        {"keep": keep, "spread": spread, "early_stopping": early_stopping, "learning_rate": rate}
        for rate in (2e-3, 5e-3)
    ]


study = Study(
    question="Is a network trained on a quarter of the sequence above the dense one in test accuracy, its gap smaller, "
    "and the ensemble of its passes above the dense network?",
    setting="400 digits as 16 patches, transformer of 2 layers of width 32, 80 epochs, the last 8 dense",
    run=run,
    arms={
        "dense": arm(1.0),
        "early_stopping": arm(1.0, early_stopping=True),
        "subsampled": arm(0.25),
        "local": arm(0.25, spread=4.0),
    },
    expectations=[
        Expectation("subsampled", "dense"),
        Expectation("subsampled", "dense", "gap", "lower"),
        Expectation("subsampled", "dense", "ensemble"),
        Expectation("local", "dense"),
    ],
)
