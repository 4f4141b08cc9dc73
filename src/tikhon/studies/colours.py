"""Colours: digits whose colour agrees with the label in two training domains, and is reversed in the test domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Run, Settings

AGREEMENT = (0.9, 0.8)  # of colour and label in the two training domains
REVERSED = 0.1  # in the test domain
NOISE = 0.25  # share of labels that are flipped: the shape alone is right less often than the colour


def coloured_digits(
    methods: Callable[[Settings, Tensor], Sequence[Method]],
    *,
    epochs: int,
    batch_size: int,
    chosen: Literal["inside", "reversed"],
) -> Run:
    """Tell digits from 0 to 4 from the others, with two bits of colour beside the pixels.

    methods: (settings, domains) -> those of an arm; chosen: by which held-out samples the search chooses, those of the
    training domains, or, as the papers of this problem do, those of the test domain. Measures: metric (accuracy where
    the colour is reversed), inside (accuracy in the training domains, on held-out samples) and validation.
    """

    def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
        task = load_task("digits", seed=seed)
        generator = torch.Generator().manual_seed(seed_for("colours", seed))
        domains = torch.arange(len(task.train.target)) % 2
        inputs, labels = coloured(task.train, torch.tensor(AGREEMENT)[domains], generator)
        held = coloured(task.validation, _everywhere(task.validation, sum(AGREEMENT) / 2), generator)
        test = coloured(task.test, _everywhere(task.test, REVERSED), generator)
        outside = coloured(task.validation, _everywhere(task.validation, REVERSED), generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("weights", seed))
            model = nn.Sequential(nn.Linear(inputs.shape[1], 64), nn.ReLU(), nn.Linear(64, 2))
        trained, _ = fit(
            model,
            Recipe(*methods(settings, domains), seed=seed),
            (inputs, labels),
            epochs=epochs,
            batch_size=batch_size,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
            seed=seed,
            on_epoch=lambda epoch, _: report((epoch + 1) / epochs),
        )
        with torch.no_grad():
            measures = {name: accuracy(trained(x), y) for name, (x, y) in (("metric", test), ("inside", held))}
            by = held if chosen == "inside" else outside
            return measures | {"validation": accuracy(trained(by[0]), by[1])}

    return run


def _everywhere(split: Split, agreement: float) -> Tensor:
    return torch.full((len(split.target),), agreement)


def coloured(split: Split, agreement: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(pixels and two bits of colour, labels): the label is the digit's half, flipped now and then."""
    labels = (split.target >= 5).long()
    labels = torch.where(torch.rand(len(labels), generator=generator) < NOISE, 1 - labels, labels)
    colour = torch.where(torch.rand(len(labels), generator=generator) < agreement, labels, 1 - labels)
    return torch.cat([split.inputs.flatten(1), F.one_hot(colour, 2).float()], dim=1), labels
