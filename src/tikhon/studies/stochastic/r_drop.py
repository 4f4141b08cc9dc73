"""Does a network trained with dropout gain from drawing two masks' predictions together?"""

from torch import nn

from tikhon.data import Task
from tikhon.studies.study import Expectation, Study, plain, training


def network(task: Task) -> nn.Module:
    """The usual MLP, with dropout after both hidden layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(task.train.inputs[0].numel(), 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, task.outputs),
    )


study = Study(
    question="With few labels, is a network with dropout more accurate when its predictions under two masks are drawn "
    "together?",
    setting="digits, 150 samples, MLP 64-256-256-10 with dropout of 0.3, 60 epochs",
    run=training(task={"source": "digits", "train_size": 150}, model=f"{__name__}:network", epochs=60, batch_size=32),
    arms={
        "none": plain(3),
        "r_drop": plain(3, "r_drop"),
    },
    expectations=[Expectation("r_drop", "none")],
)
