"""Does noise on the gradients let a network learn that begins at zero, where it has no gradient to follow?"""

from __future__ import annotations

from math import prod

import torch
from torch import nn

from tikhon.data import Task
from tikhon.studies.study import Expectation, Study, plain, training


def network(task: Task) -> nn.Module:
    """Five hidden layers of 50 with all weights zero, the worst of the paper's initialisations."""
    widths = [prod(task.input_shape), *[50] * 5]
    layers = [layer for i in range(5) for layer in (nn.Linear(widths[i], widths[i + 1]), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(50, task.outputs))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


study = Study(
    question="From weights that are all zero, is a deep network with gradient noise 50 points more accurate than plain "
    "training?",
    setting="digits, MLP of five hidden layers of 50, all weights zero at first, 100 epochs",
    run=training(task={"source": "digits"}, model="tikhon.studies.dynamics.gradient_noise:network", epochs=100),
    arms={
        "none": plain(2, rates=(0.01, 0.1)),
        "gradient_noise": [{"recipe": f"gradient_noise(eta={eta})", "learning_rate": 0.01} for eta in (0.01, 0.3)],
    },
    expectations=[Expectation("gradient_noise", "none", margin=0.5)],
)
