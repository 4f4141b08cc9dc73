"""Does DR-Tune fine-tune better on few samples than plain fine-tuning?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.passes import frozen_copy
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, build_model, load_task
from tikhon.data.splits import draw
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

SHOTS, PRETRAINING, EPOCHS = 10, 10, 30


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Pretrain a CNN on digits 0 to 4, then fine-tune it with a fresh classifier on ten samples each of 5 to 9.

    Measures: metric and validation (accuracy on 5 to 9), pretrained (accuracy of the classifier at the end on the test
    features of the pretrained encoder).
    """
    task = load_task("digits", seed=seed)
    model, _ = fit(
        build_model("cnn", task, seed=seed),
        Recipe(seed=seed),
        _part(task.train, 0),
        epochs=PRETRAINING,
        batch_size=64,
        seed=seed,
    )
    assert isinstance(model, nn.Sequential)
    model[-1] = _classifier(model[-1], seed)
    encoder = frozen_copy(model[:-1])
    arm = parse_arm(settings["recipe"])
    validation, test = _part(task.validation, 5), _part(task.test, 5)
    trained, _ = fit(
        model,
        Recipe(*arm.methods(), seed=seed),
        _few(_part(task.train, 5), seed),
        epochs=EPOCHS,
        batch_size=16,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=0.9),
        metrics={"validation": lambda model: accuracy(model(validation[0]), validation[1])},
        keep_best="validation" if arm.early_stopping else None,
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    assert isinstance(trained, nn.Sequential)
    trained.eval()
    with torch.no_grad():
        return {
            "metric": accuracy(trained(test[0]), test[1]),
            "pretrained": accuracy(trained[-1](encoder(test[0])), test[1]),
            "validation": accuracy(trained(validation[0]), validation[1]),
        }


def _part(split: Split, first: int) -> tuple[Tensor, Tensor]:
    """The samples of five digits, labelled from 0."""
    kept = (split.target >= first) & (split.target < first + 5)
    return split.inputs[kept], split.target[kept] - first


def _few(data: tuple[Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor]:
    rows, _ = draw(data[1], 5 * SHOTS, torch.Generator().manual_seed(seed_for("shots", seed)))
    return data[0][rows], data[1][rows]


def _classifier(like: nn.Module, seed: int) -> nn.Module:
    """A fresh last layer."""
    fresh = copy.deepcopy(like)
    assert isinstance(fresh, nn.Linear)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("classifier", seed))
        fresh.reset_parameters()
    return fresh


RATES = (0.1, 0.05, 0.02)

study = Study(
    question="Fine-tuned on ten samples a class, is DR-Tune's accuracy above plain fine-tuning's, and does its "
    "classifier do better on the features of the pretrained encoder?",
    setting="digits, CNN pretrained on 0 to 4, fine-tuned on ten samples each of 5 to 9, 30 epochs with early stopping",
    run=run,
    arms={
        "none": [{"recipe": "early_stopping", "learning_rate": rate} for rate in RATES],
        "dr_tune": [{"recipe": "dr_tune(size=100)+early_stopping", "learning_rate": rate} for rate in RATES],
    },
    expectations=[
        Expectation("dr_tune", "none"),
        Expectation("dr_tune", "none", "pretrained"),
    ],
)
