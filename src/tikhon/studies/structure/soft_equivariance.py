"""Does soft equivariance predict better than none and than full symmetry, and find the symmetry that is broken?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from tikhon.core.fit import fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.math.groups import copies, equivariant_part, generated, regular
from tikhon.methods.structure.soft_equivariance import EquivariancePenalty
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

SAMPLES, WIDTH, EPOCHS = 60, 32, 800
WARMUP = 200
TURN = torch.stack([torch.eye(2), -torch.eye(2)])
MIRROR = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0]))])
SYMMETRIES = {"turn": (TURN, torch.ones(2, 1, 1)), "mirror": (MIRROR, torch.ones(2, 1, 1))}


class Both(nn.Module):
    """A weight, or a bias as a column, made to respect both groups: every symmetry is a product of one of each."""

    def __init__(self, groups: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, values: Tensor) -> Tensor:
        part = values if values.ndim == 2 else values[:, None]
        for outgoing, ingoing in self.groups:
            part = equivariant_part(part, outgoing, ingoing)
        return part.reshape(values.shape)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Fit a function of the plane that a half turn leaves as it is, and a mirror nearly, from few noisy samples.

    Measures: error (root mean squared, on clean test data, as a share of their standard deviation), contrast (log10 of
    how much more the network violates the mirror than the turn), validation (minus the squared error on noisy data).
    """
    generator = torch.Generator().manual_seed(seed_for("plane", seed))
    train, validation, test = (
        _data(count, noise, generator) for count, noise in ((SAMPLES, 0.1), (500, 0.1), (2000, 0.0))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(2, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))
    penalty = EquivariancePenalty(SYMMETRIES, strength=settings["strength"], warmup=WARMUP)
    if settings["hard"]:
        _constrain(model)
    methods: list[Method] = [penalty]
    trained, _ = fit(
        model,
        Recipe(*methods, base=F.mse_loss, seed=seed),
        train,
        epochs=EPOCHS,
        batch_size=SAMPLES,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        metrics={"validation": lambda one: -float(F.mse_loss(one(validation[0]), validation[1]))},
        keep_best="validation",
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    with torch.no_grad():
        violations = {name: float(value) for name, value in penalty.violations(trained).items()}
        return {
            "error": float((F.mse_loss(trained(test[0]), test[1]) / test[1].var()).sqrt()),
            "contrast": math.log10((violations["mirror"] + 1e-9) / (violations["turn"] + 1e-9)),
            "validation": -float(F.mse_loss(trained(validation[0]), validation[1])),
        }


def _data(count: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """cos 2u + v^2, which half turn and mirror respect, and 0.5 sin 2uv, which only the half turn does."""
    x = 2.0 * torch.rand(count, 2, generator=generator) - 1.0
    u, v = x.unbind(1)
    y = torch.cos(2.0 * u) + v**2 + 0.5 * torch.sin(2.0 * u * v)
    return x, (y + noise * torch.randn(count, generator=generator))[:, None]


def _constrain(model: nn.Sequential) -> None:
    """Build both symmetries into every layer."""
    together = generated(torch.cat([ingoing for ingoing, _ in SYMMETRIES.values()]))
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers):
        for name in ("weight", "bias"):
            groups = []
            for ingoing, outgoing in SYMMETRIES.values():
                hidden = copies(regular(ingoing, together), WIDTH // len(together))
                before = ingoing if number == 0 else hidden
                after = outgoing if number == len(layers) - 1 else hidden
                groups.append((after, before if name == "weight" else torch.ones(len(ingoing), 1, 1)))
            parametrize.register_parametrization(layer, name, Both(groups))


def rates(hard: bool) -> list[Settings]:
    return [{"hard": hard, "strength": 0.0, "learning_rate": rate} for rate in (0.01, 0.003, 0.03)]


study = Study(
    question="Is the error of soft equivariance below that of a plain network and of one that respects both "
    "symmetries, and does it violate the broken one more than the other, threefold against a plain network?",
    setting="function of the plane with a half turn and a broken mirror, 60 samples with noise, MLP 2-32-32-1, 800 "
    "steps of Adam, strengths rescaled after 200, early stopping in all arms",
    run=run,
    arms={
        "none": rates(hard=False),
        "hard": rates(hard=True),
        "soft_equivariance": [
            {"hard": False, "strength": strength, "learning_rate": 0.01} for strength in (0.01, 0.03, 0.1)
        ],
    },
    expectations=[
        Expectation("soft_equivariance", "none", "error", "lower"),
        Expectation("soft_equivariance", "hard", "error", "lower"),
        Expectation("soft_equivariance", "none", "contrast", margin=0.5),
    ],
)
