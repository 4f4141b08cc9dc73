"""Does group DRO help the group whose colour misleads, with early stopping in both arms?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.methods.domains.group_dro import GroupDRO
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

AGREEMENT = 0.95  # of colour and label in training; even in the groups that are compared
EPOCHS = 40


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Tell digits from 0 to 4 from the others, with two bits of colour beside the pixels, in four groups of label and
    colour, two of them rare.

    settings: eta (None for plain training), learning_rate, of Adam. The epoch kept and the candidate chosen are those
    best in the worst group of validation data. Measures: metric (accuracy in the worst group of the test data), mean
    (accuracy over all groups alike) and validation.
    """
    task = load_task("digits", seed=seed)
    generator = torch.Generator().manual_seed(seed_for("colours", seed))
    inputs, labels, groups = _grouped(task.train, AGREEMENT, generator)
    held, test = (_grouped(split, 0.5, generator) for split in (task.validation, task.test))
    methods = [] if settings["eta"] is None else [GroupDRO(groups, eta=settings["eta"])]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(inputs.shape[1], 64), nn.ReLU(), nn.Linear(64, 2))
    trained, _ = fit(
        model,
        Recipe(*methods, seed=seed),
        (inputs, labels),
        epochs=EPOCHS,
        batch_size=128,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        metrics={"worst": lambda model: min(_by_group(model, *held))},
        keep_best="worst",
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    found = _by_group(trained, *test)
    return {"metric": min(found), "mean": sum(found) / 4, "validation": min(_by_group(trained, *held))}


def _grouped(split: Split, agreement: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(pixels and colour, label, group): a colour that agrees with the label this often."""
    labels = (split.target >= 5).long()
    colour = torch.where(torch.rand(len(labels), generator=generator) < agreement, labels, 1 - labels)
    inputs = torch.cat([split.inputs.flatten(1), 3.0 * F.one_hot(colour, 2).float()], dim=1)
    return inputs, labels, 2 * labels + colour


@torch.no_grad()
def _by_group(model: nn.Module, inputs: Tensor, labels: Tensor, groups: Tensor) -> list[float]:
    output = model(inputs)
    return [accuracy(output[groups == group], labels[groups == group]) for group in range(4)]


study = Study(
    question="Is accuracy in the worst of four groups of label and colour higher with group DRO than without, with "
    "early stopping in both?",
    setting="digits below and above 5, a strong colour that agrees in 95%, MLP 66-64-2, 40 epochs of Adam",
    run=run,
    arms={
        "none": [{"eta": None, "learning_rate": rate} for rate in (1e-3, 3e-4, 3e-3)],
        "group_dro": [{"eta": eta, "learning_rate": 1e-3} for eta in (0.01, 0.1, 1.0)],
    },
    expectations=[Expectation("group_dro", "none")],
)
