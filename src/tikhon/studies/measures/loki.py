"""Does the Frechet mean reach classes that were not in the training set?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.measures.loki import frechet_predict
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

CLASSES = 20
KNOWN = torch.tensor([k for k in range(CLASSES) if k % 3 != 1])
EPOCHS = 40


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Twenty ordered classes seen through a random curve in ten dimensions; a third are not in the training set.

    Measures: unseen (accuracy on classes that were not trained on), squared_distance (mean squared distance of labels
    over all classes), validation (accuracy on the known classes).
    """
    generator = torch.Generator().manual_seed(seed_for("curve", seed))
    directions = torch.randn(4, 10, generator=generator)
    labels = KNOWN[torch.randint(len(KNOWN), (2000,), generator=generator)]
    train = _seen(labels, directions, generator)
    places = torch.searchsorted(KNOWN, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, len(KNOWN)))
    trained, _ = fit(
        model,
        Recipe(seed=seed),
        (train, places),
        epochs=EPOCHS,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    test = torch.arange(CLASSES).repeat(50)
    with torch.no_grad():
        probabilities = trained(_seen(test, directions, generator)).softmax(1)
    distances = (KNOWN[:, None] - torch.arange(CLASSES)).abs().float()
    found = (
        frechet_predict(probabilities, distances) if settings["rule"] == "frechet" else KNOWN[probabilities.argmax(1)]
    )
    known = torch.isin(test, KNOWN)
    right = (found == test).double()
    return {
        "unseen": float(right[~known].mean()),
        "squared_distance": float((found - test).double().square().mean()),
        "validation": float(right[known].mean()),
    }


def _seen(labels: Tensor, directions: Tensor, generator: torch.Generator) -> Tensor:
    """A smooth curve through ten dimensions at the place of the label, with noise."""
    place = labels.float()[:, None] / CLASSES
    waves = torch.cat([place, torch.sin(3.0 * place), torch.cos(3.0 * place), torch.sin(6.0 * place)], dim=1)
    return waves @ directions + 0.1 * torch.randn(len(labels), directions.shape[1], generator=generator)


study = Study(
    question="Is the accuracy on unseen classes above that of argmax, which is 0, and the squared distance of labels "
    "lower?",
    setting="20 ordered classes on a curve in ten dimensions, 7 of them not in the training set, MLP 10-64-13",
    run=run,
    arms={
        rule: [{"rule": rule, "learning_rate": rate} for rate in (1e-3, 3e-3, 1e-2)] for rule in ("argmax", "frechet")
    },
    expectations=[
        Expectation("frechet", "argmax", "unseen"),
        Expectation("frechet", "argmax", "squared_distance", "lower"),
    ],
)
