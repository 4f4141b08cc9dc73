"""The dual of quadratic transport, with at most k entries a column if need be, and two ways to climb it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from tikhon.math.balancing import balancing_step

HALVINGS = 30
"""Of a step, before it is given up."""
SUFFICIENT = 1e-4
"""The share of the rise that the slope promises which a step must bring."""
NEAR = 0.6
"""Of the mean error of a marginal: by how much an entry may fall short of being positive and count in a step."""
RIDGE = 3e-3
"""Of an entry, for rows without any and for the constant that every piece of the plan leaves open."""
SMOOTH = 1e-5
"""Of the mass: an error of the marginals below which k leaves no kink behind, most likely."""
PATIENCE, GAIN = 10, 1e-7
"""Climbing ends where so many iterations do not bring that share of the value."""


class TransportDual:
    """D(f, g) = <a, f> + <b, g> - sum_j (sum of the k largest [f_i + g_j - C_ij]_+^2, over i) / (2 gamma).

    cost: C (n, m); a: (n,); b: (m,); all float64 on the CPU. Potentials x are f and g together, (n + m,). D is concave
    and at most the optimum. Without k its gradient is Lipschitz and Newton's method climbs it; with k it has kinks
    where entries tie.
    """

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor) -> None:
        self.cost = cost.T.contiguous()  # (m, n): a column of the plan lies in one piece of memory
        self.a, self.b = a, b
        self.masses = torch.cat((a, b))
        # kept: fresh memory for every evaluation takes longer than its arithmetic
        self._v, self._plan = torch.empty_like(self.cost), torch.empty_like(self.cost)

    def at(self, x: Tensor, gamma: float, k: int | None) -> tuple[float, Tensor]:
        """D and its gradient (n + m,) at x. gamma: positive; k: at least 1, None: no bound."""
        n = len(self.a)
        v = torch.sub(x[:n], self.cost, out=self._v).add_(x[n:, None])
        plan = torch.clamp_min(v, 0.0, out=self._plan)
        if k is not None:
            over = (plan.sign().sum(1) > k).nonzero()[:, 0]
            if len(over):
                top = v[over].topk(k, dim=1)
                v[over] = v.new_full((len(over), n), -torch.inf).scatter_(1, top.indices, top.values)
                plan[over] = v[over].clamp_min_(0.0)
        gradient = self.masses - torch.cat((plan.sum(0), plan.sum(1))) / gamma
        flat = plan.flatten()
        return float(self.masses @ x - flat @ flat / (2.0 * gamma)), gradient

    def newton(self, x: Tensor, gamma: float, k: int | None, tolerance: float, iterations: int) -> tuple[Tensor, int]:
        """Potentials whose plan is off both marginals by at most `tolerance`, or from which no step leads further up.

        The second is where rounding ends it, or a kink: with k a step far from the top is not halved more than once.
        Returns x and the number of iterations. Source: Lorenz, Manns, Meyer 2019, arXiv 1903.01112.
        """
        value, gradient = self.at(x, gamma, k)
        lowest, idle = float("inf"), 0
        for done in range(iterations):
            error = float(gradient.abs().sum())
            idle = 0 if error < 0.9 * lowest else idle + 1
            lowest = min(lowest, error)
            if error <= tolerance or idle > 2 * PATIENCE:
                return x, done
            step = self._step(gamma, gradient, error)
            slope, slack = float(gradient @ step), 1e-14 * float(self.masses @ x.abs())
            length = 1.0
            for _ in range(HALVINGS if k is None or error < SMOOTH * float(self.b.sum()) else 2):
                moved = x + length * step
                risen, ahead = self.at(moved, gamma, k)
                if risen - value >= max(slack, SUFFICIENT * length * slope):
                    idle = 0 if k is None else idle
                    break
                # close to the top the rise is lost in rounding, but not whether the step has gone too far
                if risen - value >= -slack and float(ahead @ step) >= -0.5 * slope:
                    break
                length /= 2.0
            else:
                return x, done
            x, value, gradient = moved, risen, ahead
        return x, iterations

    def _step(self, gamma: float, gradient: Tensor, error: float) -> Tensor:
        """Newton's on the quadratic that D is around the potentials evaluated last, (n + m,).

        Entries that are almost positive count as well, the fewer the smaller the error is: the step would run into
        them, and they join what would be pieces without.
        """
        m, n = self._v.shape
        near = self._v > -NEAR * gamma * error / (n + m)
        entries = np.flatnonzero(near.numpy())  # torch's takes ten times as long
        far = min(1.0, error / float(self.b.sum()))
        counts = (np.bincount(one, minlength=size) for one, size in zip(np.divmod(entries, n), (m, n), strict=True))
        columns, rows = (torch.from_numpy(one + RIDGE * far**0.5) for one in counts)
        ones = torch.ones(len(entries), dtype=torch.float64)
        right = gradient[n:], gradient[:n]
        (g, f), _ = balancing_step(torch.from_numpy(entries), ones, (columns, rows), right, min(0.1, max(1e-6, far)))
        return gamma * torch.cat((f, g))

    def first_order(
        self, x: Tensor, gamma: float, k: int | None, tolerance: float, iterations: int
    ) -> tuple[Tensor, int]:
        """Potentials from which L-BFGS does not gain much more, whatever kinks are there, and how many iterations.

        Whoever is content with marginals to `tolerance` is so with a value to a hundredth of it.
        """
        values: list[float] = []

        def descent(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
            value, gradient = self.at(torch.from_numpy(x), gamma, k)
            return -value, -gradient.numpy()

        def enough(intermediate_result: OptimizeResult) -> None:
            values.append(-float(intermediate_result.fun))
            least = max(GAIN, 0.01 * tolerance) * abs(values[-1])
            if len(values) > PATIENCE and values[-1] <= values[-1 - PATIENCE] + least:
                raise StopIteration

        options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": tolerance / len(x)}
        found = minimize(descent, x.numpy(), jac=True, method="L-BFGS-B", callback=enough, options=options)
        return torch.from_numpy(found.x), int(found.nit)
