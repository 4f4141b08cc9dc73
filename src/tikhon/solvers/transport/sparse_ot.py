"""Sparsity-constrained optimal transport: plans with at most k entries in every column."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.math.sinkhorn import Transport, checked_problem, implicit_potentials, marginal_error

__all__ = ["sparse_ot", "delta_omega", "max_omega", "sparse_columns"]

card = Card(
    title="Sparsity-Constrained Optimal Transport",
    authors="Liu, Puigcerver, Blondel",
    year=2022,
    arxiv="2209.15466",
    problems=("speed", "compression", "stability"),
    formula=r"\min_{T\in U(a,b)} \langle T,C\rangle+\tfrac\gamma2\|T\|^2\ \text{s.t.}\ \|t_j\|_0\le k",
    claim="Explicit control of how many entries a column has, between exact (k = 1) and quadratic transport.",
    helps="Routing where every column has k places: tokens in rows, experts in columns.",
    hurts="Marginals of the rows that must be met exactly: the dual is not smooth at ties.",
    cost="An L-BFGS run on n potentials, each evaluation a sort of the n m costs.",
    neutral="",
    kind="solver",
)

ROUNDS = 50
"""Of Newton's method after L-BFGS, at most."""


def _threshold(largest: Tensor, total: Tensor) -> Tensor:
    """tau (m,) with sum_i [v_ij - tau_j]_+ = total_j in every column of `largest` (k, m), sorted downwards."""
    places = torch.arange(1, len(largest) + 1, dtype=largest.dtype, device=largest.device)[:, None]
    taus = (largest.cumsum(0) - total) / places
    last = (largest > taus).sum(0, keepdim=True).clamp_min(1) - 1
    return taus.gather(0, last)[0]


def sparse_columns(v: Tensor, b: Tensor, gamma: float, k: int | None = None) -> Tensor:
    """argmax_t <v_j, t> - (gamma/2) ||t||^2 over t >= 0 with sum b_j and at most k entries, of every column j.

    v: (n, m); b: (m,), positive; gamma: positive; k: at least 1, None: no bound. Returns (n, m): the k largest entries,
    projected onto the simplex; of equal ones which is left open. Source: Liu et al. 2022, arXiv 2209.15466; the
    projection of the greedy selection is exact (Kyrillidis et al. 2013, arXiv 1206.1529).

    >>> sparse_columns(torch.tensor([[3.0], [2.9], [2.8]]), torch.ones(1), gamma=1.0, k=2)
    tensor([[0.5500],
            [0.4500],
            [0.0000]])
    """
    top = v.topk(min(k or len(v), len(v)), dim=0)
    tau = _threshold(top.values, gamma * b)
    return torch.zeros_like(v).scatter(0, top.indices, (top.values - tau).clamp_min(0.0) / gamma)


def delta_omega(v: Tensor, gamma: float, k: int | None = None) -> Tensor:
    """max_t <v_j, t> - (gamma/2) ||t||^2 over t >= 0 with at most k entries: sum of the k largest [v]_+^2 / (2 gamma).

    v: (n, m); gamma: positive; k: at least 1, None: no bound. Returns (m,), at least 0; its gradient is the column of
    the plan that belongs to v. Source: Liu et al. 2022, arXiv 2209.15466.

    >>> delta_omega(torch.tensor([[3.0], [2.0], [-1.0]]), gamma=0.5, k=1)
    tensor([9.])
    """
    return v.topk(min(k or len(v), len(v)), dim=0).values.clamp_min(0.0).square().sum(0) / (2.0 * gamma)


def max_omega(v: Tensor, b: Tensor, gamma: float, k: int | None = None) -> Tensor:
    """max_y <v_j, y> - (gamma b_j / 2) ||y||^2 over y in the simplex with at most k entries.

    v: (n, m); b: (m,), positive; gamma: positive; k: at least 1, None: no bound. Returns (m,), differentiable once (the
    maximiser is held fixed): the gradient in v is the maximiser. Source: Liu et al. 2022, arXiv 2209.15466.

    >>> max_omega(torch.tensor([[3.0], [2.9], [2.8]]), torch.ones(1), gamma=1.0, k=1)
    tensor([2.5000])
    """
    with torch.no_grad():
        y = sparse_columns(v, b, gamma, k) / b
    return (v * y).sum(0) - 0.5 * gamma * b * y.square().sum(0)


Problem = tuple[Tensor, Tensor, Tensor, float]
"""Cost matrix, with columns in one piece of memory, marginals and gamma."""


def _full_columns(v: Tensor, b: Tensor, gamma: float) -> Tensor:
    """`sparse_columns` without k and without its sort: Newton's method for the thresholds, which rise to their end."""
    tau, before = v.amax(0) - gamma * b, -1  # not above it: the largest entry alone makes up the sum there
    while True:
        above = (v - tau).clamp_min_(0.0)
        inside = (above > 0).sum(0)
        if before == (before := int(inside.sum())):
            return above.div_(gamma)
        # Never down, as rounding would have it: the number of entries above only falls, and at last stays.
        tau = tau + ((above.sum(0) - gamma * b) / inside.clamp_min(1)).clamp_min(0.0)


def _semi_dual(problem: Problem, f: Tensor, k: int | None) -> tuple[float, Tensor]:
    """<a, f> - sum_j b_j max_omega(f - c_j, b_j), at most the optimum, and the plan of f; a - T 1 is its gradient."""
    cost, a, b, gamma = problem
    v = (f - cost.T).T  # columns in one piece of memory, as the costs are
    plan = _full_columns(v, b, gamma) if k is None else sparse_columns(v, b, gamma, k)
    return float(a @ f - (v * plan).sum() + 0.5 * gamma * plan.square().sum()), plan


def sparse_ot(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    k: int | None = None,
    gamma: float = 0.1,
    tolerance: float = 1e-9,
    iterations: int = 1000,
) -> Transport:
    """min <T, C> + (gamma/2) ||T||^2 over plans with marginals a and b and at most k entries in every column.

    The semi-dual in the rows' potentials is climbed by L-BFGS and Newton's method, in float64 on the CPU. Columns are
    exact and have never more than k entries. Without k (quadratic transport) the rows are met to `tolerance`; with k
    the dual is not smooth where entries tie, and at its top the rows need not be met: `marginal_error` says by how much
    they are not, and `value` is the dual's, a lower bound of the primal one. L-BFGS may stop a few tenths of a percent
    below the top there. Plan and potentials are differentiable on the entries that the plan has: with k, where the
    rows are met.

    cost: (n, m); a: (n,), b: (m,), positive, of equal sums, None: uniform; k: in [1, n], None: no bound; gamma:
    positive: small is close to exact transport; tolerance: of `marginal_error`; iterations: of L-BFGS, at most. The
    potentials f and g of the result give the plan as [f_i + g_j - C_ij]_+ / gamma on the k largest entries. By the
    envelope theorem, the gradient of `value` is the plan in C and f and g in the marginals. Raises `TikhonError` for
    what is no transport problem. Source: Liu, Puigcerver, Blondel 2022, arXiv 2209.15466.

    >>> import torch, tikhon
    >>> tikhon.sparse_ot(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), k=1).plan
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    cost, a, b = checked_problem(cost, a, b)
    n = len(a)
    if not 0.0 < gamma < float("inf"):
        raise TikhonError(f"gamma must be positive and finite, not {gamma}.")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n):
        raise TikhonError(f"k must be a whole number in [1, {n}] (rows of the costs), or None, not {k!r}.")
    if not tolerance > 0.0 or iterations < 1:
        raise TikhonError(f"tolerance and iterations must be positive, not {tolerance} and {iterations}.")
    with torch.no_grad():
        c, rows, columns = (one.detach().double().cpu() for one in (cost, a, b))
        rows = rows * (columns.sum() / rows.sum())  # masses that differ by rounding let the dual rise without end
        c = c.T.contiguous().T
        problem = (c, rows, columns, gamma)
        f, done = _climbed(problem, torch.zeros(n, dtype=torch.float64), None, tolerance, iterations)
        if k is not None:  # from the top of a function below: no lower than that, and past most of the ties
            f, more = _climbed(problem, f, k, tolerance, iterations)
            done += more
        _, plan = _semi_dual(problem, f, k)
        g = -_threshold((f[:, None] - c).topk(k or n, dim=0).values, gamma * columns)
        error = float(marginal_error(plan, rows, columns))
        f, g, plan = (one.to(cost) for one in (f, g, plan))
    # the Lagrangian at the optimum: its value, and the gradient that the envelope theorem gives
    slack = f @ (a - plan.sum(1)) + g @ (b - plan.sum(0))
    value = (plan * cost).sum() + 0.5 * gamma * plan.square().sum() + slack
    inside = (plan > 0).to(cost)
    f, g = implicit_potentials(cost, a, b, (f, g), inside / gamma)
    # what the solver found, in float64 if need be, with the derivative of (f_i + g_j - C_ij) / gamma where it is not 0
    slope = inside * (f[:, None] + g - cost) / gamma
    plan = plan + slope - slope.detach()
    return Transport(plan, (f, g), value, (plan * cost).sum(), error, done, error <= tolerance)


def _climbed(problem: Problem, start: Tensor, k: int | None, tolerance: float, iterations: int) -> tuple[Tensor, int]:
    """The rows' potentials at the top of the semi-dual, (n,), and after how many iterations."""
    a = problem[1]

    def descent(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        value, plan = _semi_dual(problem, torch.from_numpy(x), k)
        return -value, (plan.sum(1) - a).numpy()

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": tolerance / len(a)}
    found = minimize(descent, start.numpy(), jac=True, method="L-BFGS-B", options=options)
    f, done = torch.from_numpy(found.x), int(found.nit)
    for _ in range(ROUNDS):
        value, plan = _semi_dual(problem, f, k)
        if float((a - plan.sum(1)).abs().sum()) <= tolerance:
            break
        moved = _newton(problem, f, value, plan, k)
        if moved is None:
            break
        f, done = moved, done + 1
    return f, done


def _newton(problem: Problem, f: Tensor, value: float, plan: Tensor, k: int | None) -> Tensor | None:
    """The potentials after a step on the quadratic that the dual is around f; None where nothing rises."""
    _, a, _, gamma = problem
    inside = (plan > 0).to(plan)
    hessian = (torch.diag(inside.sum(1)) - inside / inside.sum(0) @ inside.T) / gamma
    gradient = a - plan.sum(1)
    step: Tensor = torch.linalg.lstsq(hessian, gradient[:, None], driver="gelsd").solution[:, 0]
    slack, smaller = 1e-14 * abs(value), 0.9 * float(gradient.norm())
    for halvings in range(30):
        moved: Tensor = f + step * 0.5**halvings
        now, plan = _semi_dual(problem, moved, k)
        # close to the top the rise is lost in rounding, and a smaller gradient says more
        if now > value + slack or (now > value - slack and float((a - plan.sum(1)).norm()) < smaller):
            return moved
    return None
