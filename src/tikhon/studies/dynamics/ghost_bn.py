"""Does normalising small chunks of a large batch win back some of what large batches lose?"""

from __future__ import annotations

from math import prod

from torch import nn

from tikhon.data import Task
from tikhon.studies.study import Expectation, Study, training


def network(task: Task) -> nn.Module:
    """An MLP with batch norm."""
    features = prod(task.input_shape)
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(features, 256), nn.BatchNorm1d(256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()),
        nn.Linear(256, task.outputs),
    )


def rates(recipe: str) -> list[dict[str, object]]:
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.1, 0.2, 0.4)]


study = Study(
    question="With batches of 1,024, is a network with chunks of 32 more accurate than one with plain batch norm?",
    setting="MNIST-1D, MLP 40-256-256-10 with batch norm, 60 epochs, batches of 1,024",
    run=training(
        task={"source": "mnist1d"}, model="tikhon.studies.dynamics.ghost_bn:network", epochs=60, batch_size=1024
    ),
    arms={"none": rates("none"), "ghost_bn": rates("ghost_bn(size=32)")},
    expectations=[Expectation("ghost_bn", "none")],
)
