"""Do atoms that are learned with the classes tell a rare one that principal components miss?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tikhon.core.step import seed_for
from tikhon.solvers.structure.supervised_dictionary import SupervisedDictionary
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

WIDTH, LOUD, ATOMS = 50, 8, 8
COUNTS = (120, 120, 20)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Eight loud factors that say nothing of the class, and two quiet directions that do; one class is rare.

    Measures: metric (balanced accuracy on test data), rare (share of the rare class that is found), lost (share of the
    test data's variance that the atoms do not rebuild), validation (balanced accuracy on other data).
    """
    generator = torch.Generator().manual_seed(seed_for("factors", seed))
    directions = torch.linalg.qr(torch.randn(WIDTH, LOUD + 2, generator=generator, dtype=torch.float64))[0]
    (x, labels), (others, truth), (test, asked) = (
        _drawn(counts, directions, generator) for counts in (COUNTS, (200, 200, 200), (500, 500, 500))
    )
    centre = x.mean(0)
    x, others, test = x - centre, others - centre, test - centre
    predicted, atoms = ARMS[settings["atoms"]](x, labels, settings)
    report(1.0)
    recalls = _recalls(predicted(test), asked)
    lost = (test - test @ atoms @ atoms.T).square().sum() / test.square().sum()
    return {
        "metric": float(recalls.mean()),
        "rare": float(recalls[2]),
        "lost": float(lost),
        "validation": float(_recalls(predicted(others), truth).mean()),
    }


def _drawn(counts: tuple[int, ...], directions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The first class against the second along one quiet direction, the rare third along the other."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    codes = torch.randn(len(labels), LOUD + 2, generator=generator, dtype=torch.float64)
    codes[:, :LOUD] *= torch.linspace(6.0, 2.0, LOUD, dtype=torch.float64)
    codes[:, LOUD:] *= 0.5
    codes[:, LOUD] += torch.tensor([-1.5, 1.5, 0.0], dtype=torch.float64)[labels]
    codes[:, LOUD + 1] += torch.tensor([0.0, 0.0, 2.5], dtype=torch.float64)[labels]
    noise = 0.5 * torch.randn(len(labels), WIDTH, generator=generator, dtype=torch.float64)
    return codes @ directions.T + noise, labels


def _recalls(found: Tensor, truth: Tensor) -> Tensor:
    """The share of each class that is found, (3,)."""
    return torch.stack([(found[truth == k] == k).double().mean() for k in range(3)])


Fitted = tuple[Callable[[Tensor], Tensor], Tensor]
"""How classes are predicted, and the atoms, orthonormal columns (WIDTH, ATOMS)."""


def _principal(x: Tensor, labels: Tensor, settings: Settings) -> Fitted:
    """Principal components first, a regression on them afterwards."""
    atoms = torch.linalg.svd(x, full_matrices=False)[2][:ATOMS].T
    regression = LogisticRegression(C=1.0 / settings["ridge"], max_iter=2000).fit((x @ atoms).numpy(), labels.numpy())
    return lambda other: torch.from_numpy(regression.predict((other @ atoms).numpy())), atoms


def _supervised(x: Tensor, labels: Tensor, settings: Settings) -> Fitted:
    model = SupervisedDictionary(ATOMS, xi=settings["xi"]).fit(x, labels)
    return model.predict, model.dictionary


ARMS = {"principal": _principal, "supervised": _supervised}

study = Study(
    question="Is the balanced accuracy of a supervised dictionary 0.1 above that of a regression on as many principal "
    "components, also on the rare class, where it rebuilds at most a tenth of the variance less?",
    setting="260 samples in 50 dimensions, 20 of the rare class, 8 factors that say nothing of the class, 8 atoms",
    run=run,
    arms={
        "principal": [{"atoms": "principal", "ridge": ridge} for ridge in (0.01, 0.1, 1.0)],
        "supervised": [{"atoms": "supervised", "xi": xi} for xi in (1e-4, 1e-3, 1e-2)],
    },
    expectations=[
        Expectation("supervised", "principal", margin=0.1),
        Expectation("supervised", "principal", "rare", margin=0.1),
        Expectation("supervised", "principal", "lost", "lower", margin=-0.1),
    ],
)
