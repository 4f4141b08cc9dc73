"""Does the Monge gap turn a network that fits a distribution into the optimal map to it?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.step import seed_for
from tikhon.math.kernels import squared_distances
from tikhon.math.sinkhorn import entropic_cost
from tikhon.methods.divergence.monge_gap import monge_gap
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

BATCH, STEPS, TEST = 64, 300, 500
EPSILON, ITERATIONS = 0.1, 20


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Fit a map from a standard normal to another normal distribution, of which only samples are seen.

    Measures: error (mean squared distance to the optimal map, as a share of the target's variance), displacement (mean
    squared, divided by the optimal map's), divergence (Sinkhorn's, between images and fresh samples of the target), and
    validation (minus that on samples of its own).
    """
    generator = torch.Generator().manual_seed(seed_for("normal", seed))
    root = torch.randn(2, 2, generator=generator)
    optimal = root @ root.T / 2.0 + 0.2 * torch.eye(2)  # symmetric and positive: the gradient of a convex function
    shift = torch.randn(2, generator=generator)

    def source(count: int) -> Tensor:
        return torch.randn(count, 2, generator=generator)

    def target(count: int) -> Tensor:
        return source(count) @ optimal + shift

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        x = source(BATCH)
        output = model(x)
        loss = divergence(output, target(BATCH))
        if settings["strength"]:
            gap = monge_gap(x, output, EPSILON, relative=True, iterations=ITERATIONS)
            loss = loss + settings["strength"] * gap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            report((step + 1) / STEPS)
    with torch.no_grad():
        x = source(TEST)
        best, found = x @ optimal + shift, model(x)
        return {
            "error": float((found - best).square().sum(1).mean() / optimal.square().sum()),
            "displacement": float((found - x).square().sum(1).mean() / (best - x).square().sum(1).mean()),
            "divergence": float(divergence(found, target(TEST))),
            "validation": -float(divergence(model(source(TEST)), target(TEST))),
        }


def divergence(x: Tensor, y: Tensor) -> Tensor:
    """Sinkhorn divergence of two samples of equal size: W(x, y) - W(x, x) / 2 - W(y, y) / 2."""
    even = x.new_full((len(x),), 1.0 / len(x))

    def cost(one: Tensor, other: Tensor) -> Tensor:
        return entropic_cost(squared_distances(one, other), even, even, EPSILON, ITERATIONS)

    return cost(x, y) - 0.5 * cost(x, x) - 0.5 * cost(y, y)


study = Study(
    question="Is the map closer to the optimal one with the Monge gap, moving points less, at no worse a fit?",
    setting="normal distributions in the plane, MLP 2-64-64-2, Sinkhorn divergence of batches of 64, 300 steps of Adam",
    run=run,
    arms={
        "none": [{"strength": 0.0, "learning_rate": rate} for rate in (0.01, 0.003, 0.03)],
        "monge_gap": [{"strength": strength, "learning_rate": 0.01} for strength in (0.03, 0.1, 0.3)],
    },
    expectations=[
        Expectation("monge_gap", "none", "error", "lower"),
        Expectation("monge_gap", "none", "displacement", "lower"),
        Expectation("monge_gap", "none", "divergence", "lower", margin=-0.02),
    ],
)
