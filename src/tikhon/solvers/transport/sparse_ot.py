"""Sparsity-constrained optimal transport: plans with at most k entries in every column."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.math.sinkhorn import Transport, checked_problem, implicit_potentials, marginal_error
from tikhon.math.transport_dual import GAIN, TransportDual

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
    cost="Some tens of passes over the n m costs; with k some hundreds where it binds.",
    neutral="",
    kind="solver",
)

FACTOR = 4.0
"""Between one gamma on the way and the next."""
WIDE = 0.05
"""Of the spread of the costs: gamma times the mean mass of a row or column, at most, where the way begins."""
COARSE = 0.01
"""Of the mass: how far off the marginals is near enough on the way."""


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


def _full_columns(v: Tensor, b: Tensor, gamma: float) -> Tensor:
    """`sparse_columns` without k and without its sort: Newton's method for the thresholds, which rise to their end."""
    tau, before = v.amax(0) - gamma * b, -1  # not above it: the largest entry alone makes up the sum there
    while True:
        above = (v - tau).clamp_min_(0.0)
        inside = above.sign().sum(0)
        if before == (before := int(inside.sum())):
            return above.div_(gamma)
        # Never down, as rounding would have it: the number of entries above only falls, and at last stays.
        tau = tau + ((above.sum(0) - gamma * b) / inside.clamp_min(1.0)).clamp_min(0.0)


def _fitted(dual: TransportDual, f: Tensor, gamma: float, k: int | None) -> tuple[float, Tensor, Tensor]:
    """The dual at f (n,) and the g that suits it, these potentials (n + m,), and a plan with exact columns (n, m)."""
    v = (f - dual.cost).T
    plan = _full_columns(v, dual.b, gamma) if k is None else sparse_columns(v, dual.b, gamma, k)
    x = torch.cat((f, gamma * plan.amax(0) - v.amax(0)))  # the largest entry of a column is always in the plan
    return float(dual.masses @ x - 0.5 * gamma * plan.square().sum()), x, plan


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

    The dual is climbed in float64 on the CPU by Newton's method, from a larger gamma down. Columns are exact and have
    never more than k entries. Without k (quadratic transport) the rows are met to `tolerance`; with k the dual is not
    smooth where entries tie, and at its top the rows need not be met: `marginal_error` says by how much they are not,
    and `value` is the dual's, a lower bound of the primal one. What climbs past the ties then is L-BFGS, which may stop
    a few tenths of a percent below the top. Plan and potentials are differentiable on the entries that the plan has:
    with k, where the rows are met.

    cost: (n, m); a: (n,), b: (m,), positive, of equal sums, None: uniform; k: in [1, n], None: no bound; gamma:
    positive: small is close to exact transport; tolerance: of `marginal_error`; iterations: of a climb, at most. The
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
        dual = TransportDual(c, rows, columns)
        x, done = _quadratic(dual, gamma, tolerance, iterations)
        if k is not None:
            x, more = _bounded(dual, x, gamma, k, tolerance, iterations)
            done += more
        _, x, plan = _fitted(dual, x[:n], gamma, k)
        error = float(marginal_error(plan, rows, columns))
        f, g, plan = (one.to(cost) for one in (x[:n], x[n:], plan))
    # the Lagrangian at the optimum: its value, and the gradient that the envelope theorem gives
    slack = f @ (a - plan.sum(1)) + g @ (b - plan.sum(0))
    value = (plan * cost).sum() + 0.5 * gamma * plan.square().sum() + slack
    inside = (plan > 0).to(cost)
    f, g = implicit_potentials(cost, a, b, (f, g), inside / gamma)
    # what the solver found, in float64 if need be, with the derivative of (f_i + g_j - C_ij) / gamma where it is not 0
    slope = inside * (f[:, None] + g - cost) / gamma
    plan = plan + slope - slope.detach()
    return Transport(plan, (f, g), value, (plan * cost).sum(), error, done, error <= tolerance)


def _quadratic(dual: TransportDual, gamma: float, tolerance: float, iterations: int) -> tuple[Tensor, int]:
    """The potentials at the top of the dual without k, (n + m,), and after how many iterations.

    From a gamma with which many entries are positive down to the one asked for: with few of them the plan falls into
    pieces, and Newton's method does not see from afar what joins them.
    """
    mass, spread = float(dual.b.sum()), float(dual.cost.max() - dual.cost.min())
    levels = [gamma]
    while levels[-1] * FACTOR * mass <= WIDE * spread * max(dual.cost.shape):
        levels.append(levels[-1] * FACTOR)
    _, x, _ = _fitted(dual, torch.zeros_like(dual.a), levels[-1], None)
    done = 0
    for level in reversed(levels):
        x, more = dual.newton(x, level, None, tolerance if level == gamma else COARSE * mass, iterations)
        done += more
    return x, done


def _bounded(
    dual: TransportDual, x: Tensor, gamma: float, k: int, tolerance: float, iterations: int
) -> tuple[Tensor, int]:
    """From the potentials without k to those with it, and after how many iterations.

    The dual without k lies below that with k, and with a smaller gamma its plan has fewer entries: of these tops the
    highest on the dual with k is where to begin. What follows climbs past most of the ties.
    """
    n, coarse, level, done, ahead = len(dual.a), COARSE * float(dual.b.sum()), gamma, 0, x
    best, x, plan = _fitted(dual, x[:n], gamma, k)
    error = float(marginal_error(plan, dual.a, dual.b))
    binds = error > coarse
    while binds and error > tolerance:
        level /= FACTOR
        ahead, more = dual.newton(ahead, level, None, coarse, iterations)
        done += more
        value, fitted, plan = _fitted(dual, ahead[:n], gamma, k)
        if value <= best + GAIN * abs(best):
            break
        best, x, error = value, fitted, float(marginal_error(plan, dual.a, dual.b))
    for climb in (dual.newton, dual.first_order):
        x, more = climb(x, gamma, k, tolerance, iterations)
        done += more
    return x, done
