"""Does a neural ODE that is held to small error estimates need half as many evaluations, and predict as well?

On two tasks: images, with the field and the tolerance of the paper, and two spirals, whose classes only a flow that
winds can part: there fewer evaluations cost accuracy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tikhon.blocks.structure.neural_ode import NeuralODE
from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.spirals import Field, spirals
from tikhon.studies.study import Expectation, Settings, Study

Data = tuple[Tensor, Tensor]


class ImageField(nn.Module):
    """The paper's field for images: two layers that both see the time; it counts how often it was asked."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size + 1, width), nn.Linear(width + 1, size)
        self.calls = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        time = t[:, None]
        hidden = torch.tanh(self.inner(torch.cat([y, time], dim=1)))
        velocity: Tensor = self.outer(torch.cat([hidden, time], dim=1))
        return velocity


def digits_task(seed: int) -> tuple[list[Data], nn.Sequential]:
    """(training, validation and test data), and a flow of the pixels before a linear layer, in float64."""
    task = load_task("digits", seed=seed)
    data = [(one.inputs.double(), one.target) for one in (task.train, task.validation, task.test)]
    flow = NeuralODE(ImageField(64, 100), rtol=1.4e-8, atol=1.4e-8)
    return data, nn.Sequential(nn.Flatten(), flow, nn.Linear(64, 10)).double()


def spirals_task(seed: int) -> tuple[list[Data], nn.Sequential]:
    """(training, validation and test data), and a flow in eight dimensions between two linear layers."""
    generator = torch.Generator().manual_seed(seed_for("spirals", seed))
    data = [spirals(count, generator) for count in (300, 1000, 2000)]
    return data, nn.Sequential(nn.Linear(2, 8), NeuralODE(Field(8), rtol=1e-5, atol=1e-5), nn.Linear(8, 2))


TASKS = {"digits": (digits_task, 20, 128), "spirals": (spirals_task, 150, 100)}
"""Task -> how it is made, epochs, samples in a batch."""


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train a classifier with a flow in it by Adam; the epoch best on validation data is kept.

    Measures: metric (test accuracy), doublings (log2 of the mean number of evaluations that a test sample needs),
    training (log2 of the number of evaluations of batches, forward, in training and validation), validation (accuracy
    on validation data).
    """
    make, epochs, batch_size = TASKS[settings["task"]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        (train, validation, test), model = make(seed)
    flow = model[1]
    assert isinstance(flow, NeuralODE)
    field = flow.field
    assert isinstance(field, (Field, ImageField))
    trained, history = fit(
        model,
        Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed),
        train,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        metrics={"validation": lambda one: accuracy(one(validation[0]), validation[1])},
        keep_best="validation",
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / epochs),
    )
    training = field.calls
    trained.eval()
    with torch.no_grad():
        return {
            "metric": accuracy(trained(test[0]), test[1]),
            "doublings": math.log2(float(flow.solve(model[0](test[0])).evaluations.double().mean())),
            "training": math.log2(training),
            "validation": max(history.metrics["validation"]),
        }


def rates(task: str, recipe: str, *values: float) -> list[Settings]:
    return [{"task": task, "recipe": recipe, "learning_rate": rate} for rate in values]


study = Study(
    question="Does the penalty on error estimates halve the evaluations of a neural ODE, those of training too being "
    "fewer, with an accuracy that is no more than a point lower?",
    setting="digits, flow of MLP 65-100-64 before a linear layer, Tsit5 with tolerance 1.4e-8, 20 epochs; two spirals, "
    "300 samples, flow of MLP 8-32-8, tolerance 1e-5, 150 epochs; Adam, early stopping in all arms",
    run=run,
    arms={
        "none": rates("digits", "none", 0.01, 0.003),
        "solver_reg": rates("digits", "solver_reg(strength=0.1)", 0.01, 0.003),
        "none_spirals": rates("spirals", "none", 0.01, 0.005),
        "solver_reg_spirals": rates("spirals", "solver_reg(strength=0.1)", 0.01, 0.005),
    },
    expectations=[
        Expectation("solver_reg", "none", "doublings", "lower", margin=1.0),
        Expectation("solver_reg", "none", "metric", margin=-0.01),
        Expectation("solver_reg", "none", "training", "lower"),
        Expectation("solver_reg_spirals", "none_spirals", "doublings", "lower", margin=1.0),
        Expectation("solver_reg_spirals", "none_spirals", "metric", margin=-0.01),
        Expectation("solver_reg_spirals", "none_spirals", "training", "lower"),
    ],
    seeds=12,
)
