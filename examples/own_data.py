"""Your own data and model in a comparison: two functions in a file.

Run in the folder of this file:

    tikhon compare --data own_data:load --model own_data:network --methods none,l2,mixup --seeds 3 --epochs 40
"""

import numpy as np
from torch import nn


def load():
    """Two interleaved spirals: inputs (600, 2) and one label, 0 or 1, for each.

    `(inputs, target)` is split by tikhon; a mapping with the keys "train", "test" and perhaps "validation" is taken as
    it is. Integer targets are classes 0, 1, ...; floating targets are values to predict. Whatever is random needs a
    seed of its own: every arm must see the same samples.
    """
    rng = np.random.default_rng(0)
    label = np.arange(600) % 2
    angle = rng.uniform(0.5, 3.0, 600) * np.pi
    turned = angle + np.pi * label
    points = np.stack([angle * np.cos(turned), angle * np.sin(turned)], axis=1) / 5
    return points + rng.normal(scale=0.1, size=points.shape), label


def network(task):
    """A fresh network for the task: `task.input_shape` is (2,) here and `task.outputs` is 2, the classes."""
    return nn.Sequential(
        nn.Linear(*task.input_shape, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, task.outputs),
    )
