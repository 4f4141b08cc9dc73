"""Does a deep residual network with few images generalise better, and train faster, if random blocks are left out?"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from tikhon.data.task import Task
from tikhon.studies.study import Expectation, Study, plain, training

BLOCKS, WIDTH = 16, 64


class Block(nn.Module):
    """x + f(x), normalised first."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)  # type: ignore[no-any-return]


def network(task: Task) -> nn.Module:
    """16 residual blocks of width 64."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(task.input_shape), WIDTH),
        nn.Sequential(*[Block() for _ in range(BLOCKS)]),
        nn.BatchNorm1d(WIDTH),
        nn.Linear(WIDTH, task.outputs),
    )


study = Study(
    question="With 300 images, is a network of 16 residual blocks that leaves blocks out more accurate than a plain "
    "one, and trained in less time?",
    setting="digits, 300 training images, 16 residual blocks of width 64, 40 epochs, batch 32",
    run=training(
        task={"source": "digits", "train_size": 300},
        model="tikhon.studies.stochastic.stochastic_depth:network",
        epochs=40,
        batch_size=32,
    ),
    arms={
        "none": plain(2),
        "stochastic_depth": plain(2, "stochastic_depth(at='2.*', p=0.5)"),
    },
    expectations=[
        Expectation("stochastic_depth", "none"),
        Expectation("stochastic_depth", "none", "seconds", "lower"),
    ],
)
