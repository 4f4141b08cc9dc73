"""Does SGD stay below tr(H) = 2/eta where gradient descent does not, and do norm and error fall as the rate rises?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.step import seed_for
from tikhon.measures.sgd_stability import sgd_stability
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

SAMPLES, DIMENSIONS, RELEVANT = 40, 100, 5
STEPS = 10_000
START = 0.4


class Diagonal(nn.Module):
    """x -> <u^2 - v^2, x>: the diagonal linear network."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.full((DIMENSIONS,), START, dtype=torch.float64))
        self.v = nn.Parameter(torch.full((DIMENSIONS,), START, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ (self.u.square() - self.v.square())


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """A sparse linear teacher, fitted by gradient descent or by SGD with batches of one, the rate warmed up over half
    of the steps. The arm "limit" is the bound itself.

    Measures: sgd_share (eta tr(H) / 2), gd_share (eta lambda_max / 2), path_norm (of u and v), metric (test error, the
    squared distance from the teacher), train (mean squared error), validation (less the test error: arms have one
    candidate each, so that nothing is chosen by it).
    """
    if "rate" not in settings:
        return {"sgd_share": 1.0, "validation": 0.0}
    rate, stochastic = settings["rate"], settings["stochastic"]
    generator = torch.Generator().manual_seed(seed_for("teacher", seed))
    teacher = torch.zeros(DIMENSIONS, dtype=torch.float64)
    teacher[:RELEVANT] = 1.0
    inputs = torch.randn(SAMPLES, DIMENSIONS, generator=generator, dtype=torch.float64)
    target = inputs @ teacher
    order = torch.randint(SAMPLES, (STEPS,), generator=generator)
    model = Diagonal()
    with torch.no_grad():
        for step in range(STEPS):
            rows = order[step : step + 1] if stochastic else slice(None)
            slope = 2.0 * (model(inputs[rows]) - target[rows]) @ inputs[rows] / len(inputs[rows])
            warm = rate * min(1.0, 2.0 * (step + 1) / STEPS)
            model.u.mul_(1.0 - 2.0 * warm * slope)
            model.v.mul_(1.0 + 2.0 * warm * slope)
            if step % 1000 == 999:
                report((step + 1) / STEPS)
        fit = float(F.mse_loss(model(inputs), target))
        error = float((model.u.square() - model.v.square() - teacher).square().sum())
        norm = float(model.u.square().sum() + model.v.square().sum())
    if not math.isfinite(fit):
        return {"validation": math.nan}
    found = sgd_stability(model, F.mse_loss, [(inputs, target)], rate)
    return {
        "sgd_share": found.sgd,
        "gd_share": found.gd,
        "path_norm": norm,
        "metric": error,
        "train": fit,
        "validation": -error,
    }


def arm(rate: float, stochastic: bool) -> list[Settings]:
    return [{"rate": rate, "stochastic": stochastic}]


study = Study(
    question="At rates from 0.005 to 0.025, does SGD end within tr(H) = 2/eta and gradient descent at more than twice "
    "that, and do path norm and test error fall as SGD's rate rises?",
    setting="diagonal linear network, 40 samples of 100 standard normal inputs, sparse teacher, 10,000 steps from 0.4",
    run=run,
    arms={
        "limit": [{}],
        **{f"sgd {rate:g}": arm(rate, True) for rate in (0.005, 0.01, 0.025)},
        **{f"gd {rate:g}": arm(rate, False) for rate in (0.005, 0.025)},
    },
    expectations=[
        *[Expectation(f"sgd {rate}", "limit", "sgd_share", "lower") for rate in ("0.005", "0.01", "0.025")],
        Expectation("gd 0.025", "limit", "sgd_share", margin=1.0),
        Expectation("sgd 0.01", "sgd 0.005", "path_norm", "lower"),
        Expectation("sgd 0.025", "sgd 0.01", "path_norm", "lower"),
        Expectation("sgd 0.01", "sgd 0.005", "metric", "lower"),
        Expectation("sgd 0.025", "sgd 0.01", "metric", "lower"),
        Expectation("sgd 0.025", "gd 0.025", "metric", "lower"),
    ],
)
