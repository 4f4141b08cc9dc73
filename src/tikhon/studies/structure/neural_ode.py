"""Does a flow do with the parameters of one residual block what the block itself cannot?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.blocks.structure.neural_ode import NeuralODE
from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.spirals import Field, spirals
from tikhon.studies.study import Expectation, Settings, Study

SAMPLES, WIDTH, EPOCHS = 300, 8, 60


class Residual(nn.Module):
    """One step of Euler's method in place of the flow: x + field(x)."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = x + self.field(x.new_zeros(len(x)), x)
        return moved


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Tell two interleaved spirals apart; the epoch best on validation data is kept.

    Measures: metric and validation (accuracy).
    """
    generator = torch.Generator().manual_seed(seed_for("spirals", seed))
    train, validation, test = (spirals(count, generator) for count in (SAMPLES, 1000, 2000))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        field = Field(WIDTH)
        layer = NeuralODE(field, rtol=1e-3, atol=1e-3) if settings["layer"] == "neural_ode" else Residual(field)
        model = nn.Sequential(nn.Linear(2, WIDTH), layer, nn.Linear(WIDTH, 2))
    trained, history = fit(
        model,
        Recipe(seed=seed),
        train,
        epochs=EPOCHS,
        batch_size=100,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        metrics={"validation": lambda one: accuracy(one(validation[0]), validation[1])},
        keep_best="validation",
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    with torch.no_grad():
        return {
            "metric": accuracy(trained(test[0]), test[1]),
            "validation": max(history.metrics["validation"]),
        }


def rates(layer: str) -> list[Settings]:
    return [{"layer": layer, "learning_rate": rate} for rate in (0.02, 0.01, 0.05)]


study = Study(
    question="Is the accuracy of a flow 2 points above that of one residual block with the same parameters?",
    setting="two spirals, 300 samples, MLP 8-32-8 as field or as residual block, 60 epochs of Adam, early stopping",
    run=run,
    arms={"residual": rates("residual"), "neural_ode": rates("neural_ode")},
    expectations=[Expectation("neural_ode", "residual", margin=0.02)],
)
