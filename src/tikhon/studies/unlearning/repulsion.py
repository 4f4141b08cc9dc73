"""Does repulsion from weights adapted to one mode make a generator lose that mode, and keep the others?"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.methods.continual.ewc import EWC
from tikhon.methods.unlearning.repulsion import RepulsionUnlearn
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

MODES, RADIUS, SPREAD = 10, 4.0, 0.3
TRAIN, ADAPT, UNLEARN = 1500, 200, 40  # steps
RATE = 1e-3


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """A flow model of ten modes in the plane is to lose the first; it sorts samples of its own for both stages.

    Measures: forgotten (share of 4000 samples within 3 deviations of the first mode), log_distance (log of the energy
    distance of samples to data of the other modes), validation (minus the energy distance, to data of its own).
    """
    generator = torch.Generator().manual_seed(seed_for("data", seed))
    data, retained, held = (_mixture(count, first, generator) for count, first in ((4000, 0), (2000, 1), (2000, 1)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        layers = (nn.Linear(3, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2))
        model: nn.Module = nn.Sequential(*layers)
    if settings["form"] == "retrained":
        _train(model, data[_mode(data) > 0], TRAIN, 2.0 * RATE, generator, seed)
    else:
        _train(model, data, TRAIN, 2.0 * RATE, generator, seed)
        report(0.6)
        drawn = _sample(model, 4000, generator)
        stay, go = drawn[_mode(drawn) > 0], drawn[_mode(drawn) == 0]
        method: Method | None = None
        if settings["form"] != "none":
            adapted = copy.deepcopy(model)
            _train(adapted, go, ADAPT, RATE, generator, seed, EWC(100.0), stay)
            pairs = zip(adapted.parameters(), model.parameters(), strict=True)
            start = float(sum((one - other).detach().square().sum() for one, other in pairs))
            strength = settings["strength"] * (start if settings["form"] == "inverse" else 1.0)
            method = RepulsionUnlearn(adapted.state_dict(), strength, settings["form"], rate=1.0 / start)
        report(0.8)
        _train(model, stay, UNLEARN, RATE, generator, seed, method)
    found = _sample(model, 4000, generator)
    return {
        "forgotten": float(((found - _centres()[0]).norm(dim=1) < 3.0 * SPREAD).double().mean()),
        "log_distance": math.log(_energy_distance(found, retained)),
        "validation": -_energy_distance(found, held),
    }


def _train(
    model: nn.Module,
    data: Tensor,
    steps: int,
    rate: float,
    generator: torch.Generator,
    seed: int,
    method: Method | None = None,
    known: Tensor | None = None,
) -> None:
    """Flow matching on the straight path; what `known` says is a task that the method keeps."""
    recipe = Recipe(*([] if method is None else [method]), base=F.mse_loss, seed=seed)
    recipe.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    recipe.attach(optimizer)
    if known is not None:
        recipe.end_task([_batch(known[:1000], generator)])
    for _ in range(steps):
        inputs, velocity = _batch(data[torch.randint(len(data), (256,), generator=generator)], generator)
        optimizer.zero_grad()
        recipe.loss(inputs, velocity).backward()
        optimizer.step()
    recipe.export()


def _batch(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points between data and noise with their times, and the velocity from noise to data."""
    noise, t = torch.randn(x.shape, generator=generator), torch.rand(len(x), 1, generator=generator)
    return torch.cat([t * x + (1.0 - t) * noise, t], dim=1), x - noise


@torch.no_grad()
def _sample(model: nn.Module, count: int, generator: torch.Generator, steps: int = 50) -> Tensor:
    x = torch.randn(count, 2, generator=generator)
    for step in range(steps):
        t = torch.full((count, 1), (step + 0.5) / steps)
        x = x + model(torch.cat([x, t], dim=1)) / steps
    return x


def _centres() -> Tensor:
    angles = 2.0 * math.pi * torch.arange(MODES) / MODES
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def _mixture(count: int, first: int, generator: torch.Generator) -> Tensor:
    """Points of the modes from `first` on, equally many of each on average."""
    mode = torch.randint(first, MODES, (count,), generator=generator)
    return _centres()[mode] + SPREAD * torch.randn(count, 2, generator=generator)


def _mode(points: Tensor) -> Tensor:
    """The nearest mode of every point."""
    return torch.cdist(points, _centres()).argmin(1)


def _energy_distance(one: Tensor, other: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|."""
    return float(2.0 * torch.cdist(one, other).mean() - torch.cdist(one, one).mean() - torch.cdist(other, other).mean())


study = Study(
    question="After a few steps on what may stay, are samples of the forgotten mode rarer with repulsion than without, "
    "and are the samples as close to the other modes as those of a model trained without that mode, within 20%?",
    setting="flow model of 10 modes in the plane, MLP 3-128-128-2, 40 steps on samples of its own that were sorted",
    run=run,
    arms={
        "continued": [{"form": "none"}, {"form": "none"}],
        "retrained": [{"form": "retrained"}, {"form": "retrained"}],
        "inverse": [{"form": "inverse", "strength": strength} for strength in (10.0, 100.0)],
        "exponential": [{"form": "exponential", "strength": strength} for strength in (10.0, 100.0)],
    },
    expectations=[
        Expectation("inverse", "continued", "forgotten", "lower"),
        Expectation("exponential", "continued", "forgotten", "lower"),
        Expectation("inverse", "retrained", "log_distance", "lower", margin=-0.18),
    ],
)
