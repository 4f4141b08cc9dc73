"""Does regularisation control how far a linear boundary is tilted, while accuracy hardly changes?"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tikhon.data import load_task
from tikhon.data.task import Split
from tikhon.measures.adversarial_strength import adversarial_strength
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

CLASSES = (3, 7)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Logistic regression on two digits, mean loss plus (strength / 2) ||w||^2; then, in the arm "tilted", turned by 80
    degrees towards the direction in which the training set varies least, about its mean.

    Measures: cosine (of the deviation angle, from the training set's means), distance (median distance of test samples
    from the boundary), metric (test accuracy), validation.
    """
    task = load_task("digits", seed=seed)
    train, validation, test = (_pair(split) for split in (task.train, task.validation, task.test))
    fitted = LogisticRegression(C=1.0 / (settings["strength"] * len(train[0])), max_iter=100_000, tol=1e-8)
    fitted.fit(train[0].numpy(), train[1].numpy())
    report(1.0)
    weight, bias = torch.from_numpy(fitted.coef_[0]), torch.tensor(fitted.intercept_[0])
    if settings.get("tilt"):
        weight, bias = _tilted(weight, bias, train[0], math.radians(settings["tilt"]))
    judged = adversarial_strength(*test, weight, bias)
    return {
        "cosine": 1.0 / adversarial_strength(*train, weight, bias).strength,
        "distance": float(judged.distances.median()),
        "metric": judged.accuracy,
        "validation": adversarial_strength(*validation, weight, bias).accuracy,
    }


def _pair(split: Split) -> tuple[Tensor, Tensor]:
    """The samples of the two classes, as rows, and which of the two they are."""
    chosen = (split.target == CLASSES[0]) | (split.target == CLASSES[1])
    return split.inputs[chosen].flatten(1).double(), (split.target[chosen] == CLASSES[1]).long()


def _tilted(weight: Tensor, bias: Tensor, inputs: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """The boundary turned towards the direction of least variance."""
    mean, length = inputs.mean(0), torch.linalg.vector_norm(weight)
    least = torch.linalg.svd(inputs - mean)[2][-1]
    turned = math.cos(angle) * weight / length + math.sin(angle) * least
    return turned, math.cos(angle) * bias / length - math.sin(angle) * (least @ mean)


STRENGTHS = (1e-6, 1e-4, 1e-2, 1.0)

study = Study(
    question="As L2 rises from 1e-6 to 1, does the boundary turn towards that of the nearest centroid and move away "
    "from the samples, at the same accuracy within 2 points; and can it be tilted to half the distance at no cost?",
    setting="3 against 7 of digits, logistic regression",
    run=run,
    arms={
        **{f"l2 {strength:g}": [{"strength": strength}] for strength in STRENGTHS},
        "tilted": [{"strength": 1e-2, "tilt": 80}],
    },
    expectations=[
        *[
            Expectation(f"l2 {more:g}", f"l2 {less:g}", measure)
            for measure in ("cosine", "distance")
            for less, more in pairwise(STRENGTHS)
        ],
        Expectation("l2 1", "l2 1e-06", "metric", margin=-0.02),
        Expectation("l2 1e-06", "l2 1", "metric", margin=-0.02),
        Expectation("tilted", "l2 0.01", "cosine", "lower", margin=0.5),
        Expectation("tilted", "l2 0.01", "distance", "lower", margin=0.5),
        Expectation("tilted", "l2 0.01", "metric", margin=-0.02),
    ],
)
