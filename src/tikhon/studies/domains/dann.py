"""Does domain-adversarial training follow two moons that turn, as in the paper's own example?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.methods.domains.dann import DANN
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

SAMPLES, STEPS = 300, 600
ANGLE = math.radians(35.0)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Two moons with labels, and the same shape turned by 35 degrees, other points of which are known without labels.

    settings: width of the discriminator (None for plain training), learning_rate, of Adam. Measures: metric (accuracy
    on turned test points), source (on the labelled points), validation (on turned validation points).
    """
    generator = torch.Generator().manual_seed(seed_for("moons", seed))
    x, y = _moons(generator)
    turn = torch.tensor([[math.cos(ANGLE), -math.sin(ANGLE)], [math.sin(ANGLE), math.cos(ANGLE)]])
    unlabelled, validation, test = ((points @ turn.T, labels) for points, labels in (_moons(generator) for _ in "123"))
    width = settings["width"]
    methods: list[Method] = [] if width is None else [DANN(unlabelled=unlabelled[0], width=width)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(2, 32), nn.Sigmoid(), nn.Linear(32, 2))
    recipe = Recipe(*methods, seed=seed)
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=settings["learning_rate"]), steps=STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
        report((step + 1) / STEPS)
    trained = recipe.export()
    with torch.no_grad():
        sides = (("metric", test), ("source", (x, y)), ("validation", validation))
        return {name: accuracy(trained(points), labels) for name, (points, labels) in sides}


def _moons(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two half circles that reach into each other, around the origin, with noise."""
    labels = torch.arange(SAMPLES) % 2
    angle = math.pi * torch.rand(SAMPLES, generator=generator)
    side = 1.0 - 2.0 * labels
    points = torch.stack([side * angle.cos() + labels - 0.5, side * angle.sin() + 0.5 * labels - 0.25], dim=1)
    return points + 0.05 * torch.randn(points.shape, generator=generator), labels


study = Study(
    question="On moons turned by 35 degrees, known without labels, is accuracy 10 points above that of plain training?",
    setting="300 points, 32 sigmoid units, 600 steps of Adam; candidates chosen on turned validation points",
    run=run,
    arms={
        "none": [{"width": None, "learning_rate": rate} for rate in (1e-2, 3e-3, 3e-2)],
        "dann": [{"width": 100, "learning_rate": rate} for rate in (1e-2, 3e-3, 3e-2)],
    },
    expectations=[Expectation("dann", "none", margin=0.1)],
)
