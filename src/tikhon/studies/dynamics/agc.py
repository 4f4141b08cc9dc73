"""Does adaptive clipping let a deep network without normalisation train at large batches?"""

from __future__ import annotations

from math import prod

from torch import nn

from tikhon.data import Task
from tikhon.studies.study import Expectation, Study, training


def network(task: Task) -> nn.Module:
    """Eight hidden layers of 128 without normalisation."""
    widths = [prod(task.input_shape), *[128] * 8]
    layers = [layer for i in range(8) for layer in (nn.Linear(widths[i], widths[i + 1]), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(128, task.outputs))


def rates(recipe: str) -> list[dict[str, object]]:
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.05, 0.2, 0.8)]


study = Study(
    question="With batches of 1,024, is a deep network without normalisation more accurate with adaptive clipping, "
    "each with the best of three learning rates?",
    setting="MNIST-1D, MLP with eight hidden layers of 128, 60 epochs, batches of 1,024",
    run=training(task={"source": "mnist1d"}, model="tikhon.studies.dynamics.agc:network", epochs=60, batch_size=1024),
    arms={"none": rates("none"), "agc": rates("agc(clipping=0.01)")},
    expectations=[Expectation("agc", "none")],
)
