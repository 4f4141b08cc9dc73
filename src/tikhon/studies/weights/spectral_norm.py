"""Does a discriminator of spectral norm 1 teach a generator more?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tikhon.core.errors import Diverged
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

STEPS, BATCH, LATENT, MODES, RADIUS, SPREAD = 500, 128, 4, 8, 2.0, 0.1


def hinge(output: Tensor, target: Tensor) -> Tensor:
    """max(0, 1 - y D(x)), y = 1 for real points and -1 for generated ones."""
    return (1.0 - target * output[:, 0]).relu()


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train a small GAN on eight Gaussians on a circle.

    Measures: distance (the energy distance of generated points from fresh real ones), modes (which share of the eight
    has at least a hundredth of the generated points within three deviations), validation (minus the distance, from
    other points).
    """
    generator = torch.Generator().manual_seed(seed_for("points", seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        forger, critic = _network(LATENT, 2), _network(2, 1)
    recipe = Recipe(*parse_arm(settings["recipe"]).methods(), base=hinge, seed=seed)
    recipe.prepare(critic)
    rate = settings["learning_rate"]
    of_critic = torch.optim.Adam(critic.parameters(), lr=rate, betas=(0.0, 0.9))
    of_forger = torch.optim.Adam(forger.parameters(), lr=rate, betas=(0.0, 0.9))
    recipe.attach(of_critic)
    signs = torch.ones(2 * BATCH)
    signs[BATCH:] = -1.0
    for step in range(STEPS):
        with torch.no_grad():
            forged = forger(torch.randn(BATCH, LATENT, generator=generator))
        of_critic.zero_grad()
        try:
            recipe.loss(torch.cat([_points(BATCH, generator), forged]), signs).backward()
        except Diverged:
            return {"validation": math.nan}
        of_critic.step()
        of_forger.zero_grad()
        (-critic(forger(torch.randn(BATCH, LATENT, generator=generator))).mean()).backward()
        of_forger.step()
        if step % 100 == 99:
            report((step + 1) / STEPS)
    with torch.no_grad():
        made = forger(torch.randn(2000, LATENT, generator=generator))
    return {
        "distance": energy_distance(made, _points(2000, generator)),
        "modes": _modes(made),
        "validation": -energy_distance(made, _points(2000, generator)),
    }


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.LeakyReLU(0.1), nn.Linear(64, 64), nn.LeakyReLU(0.1), nn.Linear(64, outputs)
    )


def _centres() -> Tensor:
    angles = torch.arange(MODES) * (2.0 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def _points(count: int, generator: torch.Generator) -> Tensor:
    which = torch.randint(MODES, (count,), generator=generator)
    return _centres()[which] + SPREAD * torch.randn(count, 2, generator=generator)


def _modes(made: Tensor) -> float:
    near = torch.cdist(made, _centres()) < 3.0 * SPREAD
    return float((near.double().mean(0) >= 0.01).double().mean())


def energy_distance(one: Tensor, other: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|; 0 for equal distributions (Szekely 2003)."""
    distance = 2.0 * torch.cdist(one, other).mean() - torch.cdist(one, one).mean() - torch.cdist(other, other).mean()
    return float(distance)


RATES = (1e-3, 3e-3)

study = Study(
    question="Do the points of a generator lie closer to the data, and on as many modes, where the discriminator has "
    "spectral norm 1 in every layer?",
    setting="eight Gaussians on a circle, generator and discriminator MLPs with two hidden layers of 64, hinge loss, "
    "500 steps of Adam",
    run=run,
    arms={
        "none": [{"recipe": "none", "learning_rate": rate} for rate in RATES],
        "spectral_norm": [{"recipe": "spectral_norm", "learning_rate": rate} for rate in RATES],
    },
    expectations=[
        Expectation("spectral_norm", "none", "distance", "lower"),
        Expectation("spectral_norm", "none", "modes", margin=-0.01),
    ],
)
