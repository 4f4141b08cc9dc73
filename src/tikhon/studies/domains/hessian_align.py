"""Does Hessian alignment unlearn a colour that agrees with the label in training only?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.methods.domains.hessian_align import HessianAlignment
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

AGREEMENT = (0.9, 0.8)  # of colour and label in the two training domains
REVERSED = 0.1  # in the test domain
NOISE = 0.25  # share of labels that are flipped: the shape alone is right less often than the colour
EPOCHS = 60


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Tell digits from 0 to 4 from the others, with two bits of colour beside the pixels.

    Measures: metric (accuracy where the colour is reversed), inside (accuracy in the training domains, on held-out
    samples), validation (the same as inside: the search knows nothing of the test domain).
    """
    task = load_task("digits", seed=seed)
    generator = torch.Generator().manual_seed(seed_for("colours", seed))
    domains = torch.arange(len(task.train.target)) % 2
    inputs, labels = _coloured(task.train, torch.tensor(AGREEMENT)[domains], generator)
    held = _coloured(task.validation, torch.full((len(task.validation.target),), sum(AGREEMENT) / 2), generator)
    test = _coloured(task.test, torch.full((len(task.test.target),), REVERSED), generator)
    methods: list[Method] = []
    if settings["strength"]:
        methods.append(HessianAlignment(domains, alpha=settings["strength"], beta=settings["strength"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(inputs.shape[1], 64), nn.ReLU(), nn.Linear(64, 2))
    trained, _ = fit(
        model,
        Recipe(*methods, seed=seed),
        (inputs, labels),
        epochs=EPOCHS,
        batch_size=256,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    with torch.no_grad():
        inside = accuracy(trained(held[0]), held[1])
        return {"metric": accuracy(trained(test[0]), test[1]), "inside": inside, "validation": inside}


def _coloured(split: Split, agreement: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(pixels and two bits of colour, labels): the label is the digit's half, flipped now and then."""
    labels = (split.target >= 5).long()
    labels = torch.where(torch.rand(len(labels), generator=generator) < NOISE, 1 - labels, labels)
    colour = torch.where(torch.rand(len(labels), generator=generator) < agreement, labels, 1 - labels)
    return torch.cat([split.inputs.flatten(1), F.one_hot(colour, 2).float()], dim=1), labels


study = Study(
    question="Where the colour is reversed, is accuracy with Hessian alignment 15 points above that of plain training?",
    setting="digits below and above 5, labels flipped in 25%, colour that agrees with them in 90% and 80%, at test 10%",
    run=run,
    arms={
        "none": [{"strength": 0.0, "learning_rate": rate} for rate in (1e-3, 3e-3, 3e-4)],
        "hessian_align": [{"strength": strength, "learning_rate": 1e-3} for strength in (1.0, 10.0, 100.0)],
    },
    expectations=[Expectation("hessian_align", "none", margin=0.15)],
)
