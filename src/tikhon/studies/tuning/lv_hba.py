"""Do the weights of samples that LV-HBA finds clean data of wrong labels?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.step import seed_for
from tikhon.math.iterations import minimised
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study
from tikhon.tuning.lv_hba import LVHBA

FEATURES, TRAIN, HELD, TEST, WRONG, RIDGE = 20, 150, 50, 2000, 0.4, 0.05
STEPS, RATE, SCALE = 800, 0.1, 10.0
Data = tuple[Tensor, Tensor]


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Logistic regression on 150 samples of which 40% have the wrong label, with 50 clean ones for validation.

    Measures: metric (test accuracy), validation (accuracy on the clean samples), apart (how much greater the mean
    weight of right labels is than that of wrong ones).
    """
    generator = torch.Generator().manual_seed(seed_for("labels", seed))
    truth = torch.randn(FEATURES, generator=generator, dtype=torch.float64)

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
        return inputs, (inputs @ truth).sign()

    (train, right), held, test = drawn(TRAIN), drawn(HELD), drawn(TEST)
    wrong = torch.rand(TRAIN, generator=generator) < WRONG
    given = train, torch.where(wrong, -right, right)
    equal = torch.ones(TRAIN, dtype=torch.float64)
    weights = _found(given, held) if settings["weights"] == "found" else equal
    fitted = _fitted(held, equal[:HELD]) if settings["weights"] == "clean" else _fitted(given, weights)
    report(1.0)
    apart = float(weights[~wrong].mean() - weights[wrong].mean())
    return {"metric": _accuracy(fitted, test), "validation": _accuracy(fitted, held), "apart": apart}


def _loss(classifier: Tensor, data: Data, weights: Tensor) -> Tensor:
    """The weighted mean of logistic losses, with a ridge."""
    loss = (weights * F.softplus(-data[1] * (data[0] @ classifier))).mean()
    return loss + 0.5 * RIDGE * classifier.square().sum()


def _found(given: Data, held: Data) -> Tensor:
    """Weights in [0, 1] whose classifier is best on the clean samples; the lower loss is scaled for like curvatures."""
    search = LVHBA(
        lambda x, y: F.softplus(-held[1] * (held[0] @ y)).mean(),
        lambda x, y: SCALE * _loss(y, given, x),
        project=lambda x, y: (x.clamp(0.0, 1.0), y),
        alpha=RATE,
        eta=RATE,
        gamma1=1.0,
        c=0.1,
    )
    start = torch.full((TRAIN,), 0.5, dtype=torch.float64)
    weights: Tensor = search.solve(start, torch.zeros(FEATURES, dtype=torch.float64), steps=STEPS).x
    return weights


def _fitted(data: Data, weights: Tensor) -> Tensor:
    start = torch.zeros(FEATURES, dtype=torch.float64)
    return minimised(lambda classifier: _loss(classifier, data, weights), start, RIDGE, 1e-6).x


def _accuracy(classifier: Tensor, data: Data) -> float:
    return float(((data[0] @ classifier).sign() == data[1]).double().mean())


study = Study(
    question="With 40% wrong labels, is a classifier with the weights that LV-HBA finds by 50 clean samples more "
    "accurate than one with equal weights, and than one of the clean samples alone?",
    setting="logistic regression of 20 features, 150 samples, 40% wrong labels, 50 clean ones for validation",
    run=run,
    arms={name: [{"weights": name}] for name in ("equal", "clean", "found")},
    expectations=[
        Expectation("found", "equal"),
        Expectation("found", "clean"),
        Expectation("found", "equal", "apart"),
    ],
    seeds=10,
)
