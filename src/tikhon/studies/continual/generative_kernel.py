"""Does a drawn support classify as well as a stored one, after five tasks of which nothing was kept?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.math.kernels import kernel_ridge
from tikhon.solvers.continual.generative_kernel import GenerativeKernelReplay
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

TASKS = [(first, first + 1) for first in range(0, 10, 2)]
FEATURES, STORED, DRAWN, EPOCHS = 128, 50, 200, 100


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Five pairs of digits one after another on frozen random features; at the end all ten classes compete.

    Measures: metric (test accuracy over all classes), validation (the same on the validation split).
    """
    task = load_task("digits", seed=seed)
    train, validation, test = _features(task.train, task.validation, task.test, seed=seed)
    if settings["support"] == "stored":
        kept = torch.cat([(train.target == one).nonzero()[:STORED, 0] for one in range(10)])

        def scores(x: Tensor) -> Tensor:
            support = train.inputs[kept]
            targets = F.one_hot(train.target[kept], 10).float()
            return kernel_ridge(support @ support.T, support @ x.T, targets, settings["ridge"])
    elif settings["support"] == "none":
        scores = _head(train, seed, settings["learning_rate"], report)
    else:
        replay = GenerativeKernelReplay(
            FEATURES, 10, ridge=settings["ridge"], contrast=settings["contrast"], support=DRAWN, seed=seed
        )
        for number, classes in enumerate(TASKS):
            own = _only(train, classes)
            replay.learn(own.inputs, own.target, EPOCHS)
            report((number + 1) / len(TASKS))
        scores = replay
    with torch.no_grad():
        return {
            "metric": accuracy(scores(test.inputs), test.target),
            "validation": accuracy(scores(validation.inputs), validation.target),
        }


def _head(train: Split, seed: int, rate: float, report: Report) -> nn.Module:
    """A linear head, fine-tuned on one task after another with all outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        head = nn.Linear(FEATURES, 10)
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9)
    for number, classes in enumerate(TASKS):
        own = _only(train, classes)
        for epoch in range(20):
            generator = torch.Generator().manual_seed(1000 * seed + 100 * number + epoch)
            for rows in torch.randperm(len(own), generator=generator).split(32):
                optimizer.zero_grad()
                F.cross_entropy(head(own.inputs[rows]), own.target[rows]).backward()
                optimizer.step()
        report((number + 1) / len(TASKS))
    return head


def _features(*splits: Split, seed: int) -> list[Split]:
    """Random ReLU features, the same for all splits, of mean square 1."""
    generator = torch.Generator().manual_seed(seed_for("features", seed))
    pixels = splits[0].inputs[0].numel()
    weight = torch.randn(FEATURES, pixels, generator=generator)
    mean = splits[0].inputs.flatten(1).mean(0)
    found = [((split.inputs.flatten(1) - mean) @ weight.T).relu() for split in splits]
    scale = found[0].square().mean().sqrt()
    return [Split(features / scale, split.target) for features, split in zip(found, splits, strict=True)]


def _only(split: Split, classes: tuple[int, int]) -> Split:
    return split[((split.target == classes[0]) | (split.target == classes[1])).nonzero()[:, 0]]


RIDGES = (1.0, 10.0)

study = Study(
    question="After five tasks, is accuracy on a drawn support within 3 points of that on a stored one, far above that "
    "of a fine-tuned head, and better with the contrastive term than without it?",
    setting="digits in five tasks of two classes that all compete, 128 frozen random ReLU features; 50 samples a class "
    "stored, 200 drawn",
    run=run,
    arms={
        "stored": [{"support": "stored", "ridge": ridge} for ridge in RIDGES],
        "fine-tuned": [{"support": "none", "learning_rate": rate} for rate in (0.003, 0.03)],
        "without contrast": [{"support": "drawn", "ridge": ridge, "contrast": 0.0} for ridge in RIDGES],
        "generative_kernel": [{"support": "drawn", "ridge": ridge, "contrast": 1.0} for ridge in RIDGES],
    },
    expectations=[
        Expectation("generative_kernel", "stored", margin=-0.03),
        Expectation("generative_kernel", "fine-tuned", margin=0.3),
        Expectation("generative_kernel", "without contrast"),
    ],
)
