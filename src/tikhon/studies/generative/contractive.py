"""Does a contractive auto-encoder point where the data's density grows?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

CENTRES = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
SPREAD = 0.5
EPOCHS = 60


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train an auto-encoder wider than its input on a mixture of three Gaussians in the plane.

    Measures: cosine (mean cosine between r(x) - x and the true score at points one spread around the data), validation
    (the same on other points: the search may know the truth, for all arms alike).
    """
    data = _samples(2000, seed_for("train", seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    trained, _ = fit(
        model,
        Recipe(*parse_arm(settings["recipe"]).methods(), base=F.mse_loss, seed=seed),
        (data, data),
        epochs=EPOCHS,
        batch_size=100,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings.get("learning_rate", 1e-3)),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    return {
        "cosine": _cosine(trained, _samples(2000, seed_for("test", seed))),
        "validation": _cosine(trained, _samples(500, seed_for("validation", seed))),
    }


def _samples(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(3, (count,), generator=generator)
    return CENTRES[which] + SPREAD * torch.randn(count, 2, generator=generator)


@torch.no_grad()
def _cosine(model: nn.Module, x: Tensor) -> float:
    nearness = F.softmax(-torch.cdist(x, CENTRES).square() / (2 * SPREAD**2), dim=1)
    true = (nearness @ CENTRES - x) / SPREAD**2
    return float(F.cosine_similarity(model(x) - x, true).mean())


study = Study(
    question="Is the direction in which a contractive auto-encoder changes a point that of the true score, with a "
    "cosine above 0.5 more than that of a plain one?",
    setting="mixture of three Gaussians in the plane, MLP 2-64-64-2, 60 epochs",
    run=run,
    arms={
        "none": [{"recipe": "none", "learning_rate": rate} for rate in (1e-3, 3e-3, 3e-4)],
        "contractive": [{"recipe": f"contractive(strength={strength})"} for strength in (0.01, 0.03, 0.1)],
    },
    expectations=[Expectation("contractive", "none", "cosine", margin=0.5)],
)
