"""Does a neural ODE that is held to small error estimates need half as many evaluations, and predict as well?"""

from __future__ import annotations

import math

import torch
from torch import nn

from tikhon.blocks.structure.neural_ode import NeuralODE
from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.spirals import Field, spirals
from tikhon.studies.study import Expectation, Settings, Study

SAMPLES, WIDTH, EPOCHS = 300, 8, 150
TOLERANCE = 1e-5


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Tell two interleaved spirals apart by a flow in eight dimensions; the epoch best on validation data is kept.

    Measures: metric (test accuracy), doublings (log2 of the mean number of evaluations that a test sample needs),
    training (log2 of the number of evaluations of batches, forward, in training and validation), validation (accuracy
    on validation data).
    """
    generator = torch.Generator().manual_seed(seed_for("spirals", seed))
    train, validation, test = (spirals(count, generator) for count in (SAMPLES, 1000, 2000))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        field = Field(WIDTH)
        flow = NeuralODE(field, rtol=TOLERANCE, atol=TOLERANCE)
        model = nn.Sequential(nn.Linear(2, WIDTH), flow, nn.Linear(WIDTH, 2))
    trained, history = fit(
        model,
        Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed),
        train,
        epochs=EPOCHS,
        batch_size=100,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        metrics={"validation": lambda one: accuracy(one(validation[0]), validation[1])},
        keep_best="validation",
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
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


def rates(recipe: str) -> list[Settings]:
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.01, 0.005)]


study = Study(
    question="Does the penalty on error estimates halve the evaluations of a neural ODE, those of training too being "
    "fewer, with an accuracy that is no more than a point lower?",
    setting="two spirals, 300 samples, flow of MLP 8-32-8 between linear layers, Tsit5 with tolerance 1e-5, 150 epochs "
    "of Adam, early stopping in both arms",
    run=run,
    arms={
        "none": rates("none"),
        "solver_reg": rates("solver_reg(strength=0.1)"),
    },
    expectations=[
        Expectation("solver_reg", "none", "doublings", "lower", margin=1.0),
        Expectation("solver_reg", "none", "metric", margin=-0.01),
        Expectation("solver_reg", "none", "training", "lower"),
    ],
    seeds=12,
)
