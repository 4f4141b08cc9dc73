"""Does Sinkhorn-Newton-Sparse meet the marginals in a fraction of the iterations and of the time of Sinkhorn?"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from tikhon.core.step import seed_for
from tikhon.math.sinkhorn import Transport, sinkhorn
from tikhon.solvers.transport.sinkhorn_newton_sparse import sinkhorn_newton_sparse
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

POINTS, ETA, TOLERANCE, LIMIT = 200, 1200.0, 1e-8, 5000


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Transport between two samples of the unit square, by distances and by their squares.

    Measures, for w1 and w2 each: log10_iterations (of both kinds together, at most 5,000), log10_error (of the
    marginals); and seconds (of both problems), validation (minus the greater error's logarithm).
    """
    generator = torch.Generator().manual_seed(seed_for("points", seed))
    x, y = torch.rand(2, POINTS, 2, generator=generator, dtype=torch.float64)
    measures: dict[str, float] = {"seconds": 0.0}
    for power in (1, 2):
        cost = torch.cdist(x, y) ** power
        begin = time.perf_counter()
        found = _solved(settings["solver"], cost / cost.max())
        measures["seconds"] += time.perf_counter() - begin
        measures[f"log10_iterations_w{power}"] = math.log10(found.iterations)
        measures[f"log10_error_w{power}"] = math.log10(max(found.marginal_error, 1e-16))
        report(power / 2)
    return measures | {"validation": -max(measures["log10_error_w1"], measures["log10_error_w2"])}


def _solved(solver: str, cost: Tensor) -> Transport:
    if solver == "sinkhorn":
        return sinkhorn(cost, epsilon=1.0 / ETA, tolerance=TOLERANCE, iterations=LIMIT)
    return sinkhorn_newton_sparse(cost, epsilon=1.0 / ETA, tolerance=TOLERANCE, iterations=LIMIT)


FIFTH = math.log10(5.0)

study = Study(
    question="Does Sinkhorn-Newton-Sparse need less than a fifth of the iterations of Sinkhorn, and less time?",
    setting="200 points against 200 in the unit square, distances and their squares divided by the greatest, epsilon "
    "1/1200, marginals to 1e-8 or 5,000 iterations",
    run=run,
    arms={name: [{"solver": name}] for name in ("sinkhorn", "sinkhorn_newton_sparse")},
    expectations=[
        Expectation("sinkhorn_newton_sparse", "sinkhorn", "log10_iterations_w1", "lower", margin=FIFTH),
        Expectation("sinkhorn_newton_sparse", "sinkhorn", "log10_iterations_w2", "lower", margin=FIFTH),
        Expectation("sinkhorn_newton_sparse", "sinkhorn", "log10_error_w1", "lower"),
        Expectation("sinkhorn_newton_sparse", "sinkhorn", "log10_error_w2", "lower"),
        Expectation("sinkhorn_newton_sparse", "sinkhorn", "seconds", "lower"),
    ],
)
