"""The Monge gap against the authors' library: gap, entropic cost, displacement and gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.math.kernels import squared_distances
from tikhon.math.sinkhorn import entropic_cost
from tikhon.methods.divergence.monge_gap import monge_gap

CLOSE = {"rtol": 1e-6, "atol": 1e-7}
ITERATIONS = 100_000
"""Where epsilon is small against the costs, the official numbers are those of a run that stopped at so many."""


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(np.asarray(values)) for name, values in case.items()}
    x, y, epsilon = arrays["x"], arrays["y"].clone().requires_grad_(), float(case["epsilon"])
    costs = squared_distances(x, y)
    torch.testing.assert_close(costs.diagonal().mean().detach(), arrays["displacement"], **CLOSE)
    even = torch.full((len(x),), 1.0 / len(x), dtype=x.dtype)
    with torch.inference_mode():
        found = entropic_cost(costs.detach(), even, even, epsilon, ITERATIONS)
        torch.testing.assert_close(found, arrays["ent_reg_cost"], **CLOSE)
    gap = monge_gap(x, y, epsilon, iterations=ITERATIONS)
    torch.testing.assert_close(gap.detach(), arrays["monge_gap"], **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(gap, y)[0], arrays["grad_y"], **CLOSE)
