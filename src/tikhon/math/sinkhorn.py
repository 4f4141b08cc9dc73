"""Entropic optimal transport in the log domain, which no small regularisation underflows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32

Potentials = tuple[Tensor, Tensor]
PINV_CUTOFF = 1e-13
"""Below it, against the largest, an eigenvalue of the Schur complement is 0: rounding in float64."""


@dataclass(frozen=True, eq=False)
class Transport:
    """A transport plan and how far to trust it.

    plan: (n, m), at least 0; potentials: f (n,) and g (m,), of the dual problem; value: the optimum of the regularised
    problem; cost: <plan, cost matrix>; marginal_error: sum of absolute differences from both marginals; converged:
    whether that met the tolerance; products: with sparse matrices inside the iterations.

    All but the numbers are differentiable once in cost matrix and marginals, whatever the iterations were: `value` by
    the envelope theorem, the others by the implicit function theorem (`implicit_potentials`), which asks for a result
    that has converged.
    """

    plan: Tensor
    potentials: Potentials
    value: Tensor
    cost: Tensor
    marginal_error: float
    iterations: int
    converged: bool
    products: int = 0


def checked_problem(cost: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Cost matrix and marginals of one type, at least float32; a `TikhonError` where they make no transport problem.

    cost: (n, m), finite; a: (n,), b: (m,), positive, of equal sums; None: uniform, of sum 1. Looks at values.
    """
    if cost.ndim != 2 or not cost.numel():
        raise TikhonError(f"A cost matrix is (n, m), neither of them 0, not {tuple(cost.shape)}.")
    if not cost.is_floating_point():
        raise TikhonError(f"A cost matrix is floating-point, not {cost.dtype}: use cost.float().")
    cost = at_least_float32(cost)
    marginals = []
    for name, given, size in (("a", a, cost.shape[0]), ("b", b, cost.shape[1])):
        if given is not None and not isinstance(given, Tensor):
            raise TikhonError(f"{name} must be a tensor ({size},), not {given!r}.")
        one = cost.new_full((size,), 1.0 / size) if given is None else given.to(cost)
        if one.shape != (size,):
            raise TikhonError(f"{name} must be ({size},) for costs {tuple(cost.shape)}, not {tuple(one.shape)}.")
        if not bool((one.isfinite() & (one > 0)).all()):
            raise TikhonError(f"{name} must be positive and finite: leave out the rows and columns without mass.")
        marginals.append(one)
    if not all(map(math.isfinite, _ends(cost))):
        raise TikhonError("The cost matrix must be finite; give a forbidden pair a large cost.")
    masses = [float(one.detach().sum()) for one in marginals]
    if abs(masses[0] - masses[1]) > 100.0 * torch.finfo(cost.dtype).eps * max(masses):
        raise TikhonError(f"a and b must have the same mass, not {masses[0]} and {masses[1]}: divide each by its sum.")
    return cost, marginals[0], marginals[1]


def _ends(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest; NaN where one is."""
    low, high = values.detach().aminmax()
    return float(low), float(high)


def default_tolerance(cost: Tensor, epsilon: float) -> float:
    """1e-9, or what rounding allows, up to 1e-3: the potentials, as large as the costs, are divided by epsilon."""
    scale = 1.0 + max(map(abs, _ends(cost))) / epsilon
    return min(1e-3, max(1e-9, 8.0 * torch.finfo(cost.dtype).eps * scale))


def plan_of(cost: Tensor, potentials: Potentials, epsilon: float | Tensor) -> Tensor:
    """P_ij = exp((f_i + g_j - C_ij) / epsilon), at least 1e-34: cost (n, m), potentials (n,) and (m,) -> (n, m)."""
    # in place: at a thousand points, fresh memory for every operation takes longer than the arithmetic
    return _exponentials((potentials[0][:, None] - cost).add_(potentials[1]).div_(epsilon))


def _exponentials(x: Tensor) -> Tensor:
    """e^x, at least 1e-34, written over x.

    With results below the smallest normal number an exponential takes thirty times longer, a product three times.
    """
    return x.clamp_min_(0.9 * math.log(torch.finfo(x.dtype).tiny)).exp_()


def marginal_error(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """||P 1 - a||_1 + ||P^T 1 - b||_1, a scalar.

    >>> marginal_error(torch.eye(2), torch.tensor([1.0, 0.5]), torch.ones(2))
    tensor(0.5000)
    """
    return (plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()


def dual_value(cost: Tensor, a: Tensor, b: Tensor, potentials: Potentials, epsilon: float | Tensor) -> Tensor:
    """<a, f> + <b, g> + epsilon (sum a - sum P), at most min <P, C> + epsilon sum P log P, and that at the optimum.

    cost: (n, m); a: (n,); b: (m,); potentials: f (n,), g (m,), held fixed: by the envelope theorem the gradient is that
    of the optimum, P in the cost and f and g (up to a constant) in the marginals, as exact as the potentials are. Its
    own derivative is not the second derivative of the optimum. Returns a scalar. Source: Peyre, Cuturi 2019,
    arXiv 1803.00567, section 4.4.
    """
    held = (potentials[0].detach(), potentials[1].detach())
    return dual_of(a, b, held, plan_of(cost, held, epsilon), epsilon)


def dual_of(a: Tensor, b: Tensor, potentials: Potentials, plan: Tensor, epsilon: float | Tensor) -> Tensor:
    """`dual_value` where the plan of the potentials is at hand; differentiable in the marginals alone."""
    return a @ potentials[0] + b @ potentials[1] + epsilon * (a.sum() - plan.sum())


class _Implicit(torch.autograd.Function):
    """Potentials that are held to what they must solve when they are differentiated."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, response: Tensor) -> Potentials:
        ctx.save_for_backward(response)
        return f.clone(), g.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor, below: Tensor) -> tuple[Tensor | None, ...]:
        (response,) = ctx.saved_tensors
        rows, columns = response.sum(1).double(), response.sum(0).double()
        w = response.double()
        # What a constant moved from f to g brings is no derivative of the plan.
        gauge = (above.double().sum() - below.double().sum()) / (len(rows) + len(columns))
        u, v = above.double() - gauge, below.double() + gauge
        inverse = columns.clamp_min(torch.finfo(torch.float64).tiny).reciprocal()
        # The Schur complement is singular: once for that constant, and once more for each block that a plan falls into.
        schur = rows.diag() - (w * inverse) @ w.T
        x = torch.linalg.pinv(schur, hermitian=True, rtol=PINV_CUTOFF) @ (u - w @ (inverse * v))
        y = inverse * (v - w.T @ x)
        return (w * (x[:, None] + y)).to(response), x.to(above), y.to(below), None, None, None


def implicit_potentials(cost: Tensor, a: Tensor, b: Tensor, potentials: Potentials, response: Tensor) -> Potentials:
    """The same potentials, differentiable in cost and marginals by the implicit function theorem.

    A plan whose entries are functions of f_i + g_j - C_ij, with derivative W, keeps its marginals where

        [[diag(W 1), W], [W^T, diag(W^T 1)]] (df, dg) = ((W * dC) 1 + da, (W * dC)^T 1 + db).

    cost: (n, m); a: (n,); b: (m,); potentials: f (n,), g (m,), that meet the marginals; response: W (n, m), at least
    0: P / epsilon of entropic transport. Returns f and g. The gradient costs n^3, in float64. f and g are determined up
    to a constant, and so are the gradients in a and b: use them along changes that keep the masses equal.
    Source: Luise et al. 2018, arXiv 1805.11897.

    >>> cost = torch.zeros(2, 2, requires_grad=True)
    >>> half = torch.full((2,), 0.5)
    >>> f, g = implicit_potentials(cost, half, half, (half, half), torch.full((2, 2), 0.25))
    >>> torch.autograd.grad((f[:, None] + g).sum(), cost)[0]
    tensor([[1., 1.],
            [1., 1.]])
    """
    f, g = _Implicit.apply(cost, a, b, potentials[0].detach(), potentials[1].detach(), response.detach())  # type: ignore[no-untyped-call]
    return f, g


def sinkhorn_step(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, epsilon: float | Tensor) -> Potentials:
    """One iteration: g fits the columns to f, then f fits the rows to g. The new potentials, (n,) and (m,)."""
    g = epsilon * (b.log() - _logsumexp((f[:, None] - cost).div_(epsilon), dim=0))
    return epsilon * (a.log() - _logsumexp((g - cost).div_(epsilon), dim=1)), g


def _logsumexp(x: Tensor, dim: int) -> Tensor:
    """`torch.logsumexp` of finite numbers that are not needed any more: x is written over."""
    peak = x.detach().amax(dim, keepdim=True)
    return _exponentials(x.sub_(peak)).sum(dim).log() + peak.squeeze(dim)


def entropic_cost(cost: Tensor, a: Tensor, b: Tensor, epsilon: float | Tensor, iterations: int = 100) -> Tensor:
    """min <P, C> + epsilon sum P log P over plans with marginals a and b, from a fixed number of iterations.

    For training: no value is looked at, and the gradient is exact for what is returned, a lower bound of the optimum
    that differs by the square of what the potentials lack. cost: (n, m); a: (n,), b: (m,), positive, of equal sums;
    epsilon: positive. Returns a scalar, differentiable once (`dual_value`). Source: Cuturi 2013, arXiv 1306.0895.

    >>> half = torch.full((2,), 0.5)
    >>> entropic_cost(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), half, half, epsilon=0.01)
    tensor(-0.0069)
    """
    with torch.no_grad():
        potentials = (torch.zeros_like(a), torch.zeros_like(b))
        for done in range(iterations):
            if not done:
                potentials = sinkhorn_step(cost, a, b, potentials[0], epsilon)
                continue
            # products with the plan say the same as exponentials of their own: its rows are met and of its columns the
            # share min a at least, so that no sum vanishes, however small epsilon is
            plan = plan_of(cost, potentials, epsilon)
            v = b / plan.sum(0)
            potentials = _absorbed(potentials, a / (plan @ v), v, epsilon)
    return dual_value(cost, a, b, potentials, epsilon)


def _absorbed(potentials: Potentials, u: Tensor, v: Tensor, epsilon: float | Tensor) -> Potentials:
    """The potentials of diag(u) P diag(v)."""
    return potentials[0] + epsilon * u.log(), potentials[1] + epsilon * v.log()


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    epsilon: float = 0.05,
    tolerance: float | None = None,
    iterations: int = 10_000,
) -> Transport:
    """min <P, C> + epsilon sum P log P over plans with marginals a and b, until these are met.

    cost: (n, m); a: (n,), b: (m,), positive, of equal sums, None: uniform; epsilon: positive, in units of the cost;
    tolerance: of `marginal_error`, None: 1e-9 or what the precision allows; iterations: at most so many. Raises
    `TikhonError` for what is no transport problem. Source: Cuturi 2013, arXiv 1306.0895.

    >>> found = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.5)
    >>> found.plan, found.converged
    (tensor([[0.4404, 0.0596],
            [0.0596, 0.4404]]), True)
    """
    cost, a, b = checked_problem(cost, a, b)
    checked_solver(epsilon, tolerance, iterations)
    goal = default_tolerance(cost, epsilon) if tolerance is None else tolerance
    with torch.no_grad():
        potentials, done = fitted_potentials(cost, a, b, epsilon, goal, iterations)
    return transport(cost, a, b, potentials, epsilon, goal, done)


def fitted_potentials(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float, iterations: int
) -> tuple[Potentials, int]:
    """Potentials whose plan meets the marginals, and after how many iterations.

    Each fits two factors of a plan that is kept as long as they are moderate, and then made again with the factors in
    its potentials (Schmitzer 2019, arXiv 1610.06519): the iterations of the log domain without its exponentials.
    """
    # what is too small for the plan stays below the rounding of its sums as long as no factor is larger or its inverse
    most = torch.finfo(cost.dtype).tiny ** -0.25
    potentials, done = (torch.zeros_like(a), torch.zeros_like(b)), 0
    if max(map(abs, _ends(cost))) > epsilon * math.log(most):
        potentials, done = sinkhorn_step(cost, a, b, potentials[0], epsilon), 1
    while True:
        plan = plan_of(cost, potentials, epsilon)
        u, v = torch.ones_like(a), torch.ones_like(b)
        smallest = largest = 1.0
        while smallest >= 1.0 / most and largest <= most:
            # after an iteration the rows are exact, and the columns say how far off they are
            columns = u @ plan
            if done and (done == iterations or float((columns * v - b).abs().sum()) <= tolerance):
                return _absorbed(potentials, u, v, epsilon), done
            v = b / columns
            u = a / (plan @ v)
            smallest, largest = _ends(torch.cat((u, v)))
            done += 1
        potentials = _absorbed(potentials, u, v, epsilon)


def checked_solver(epsilon: float, tolerance: float | None, iterations: int) -> None:
    """Refuse settings with which no solver can work."""
    if not 0.0 < epsilon < float("inf"):
        raise TikhonError(f"epsilon must be positive and finite, not {epsilon}.")
    if tolerance is not None and not tolerance > 0.0:
        raise TikhonError(f"tolerance must be positive, not {tolerance}.")
    if iterations < 1:
        raise TikhonError(f"iterations must be at least 1, not {iterations}.")


def transport(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    potentials: Potentials,
    epsilon: float,
    tolerance: float,
    iterations: int,
    products: int = 0,
) -> Transport:
    """The result that belongs to these potentials of the entropic problem."""
    potentials = (potentials[0].detach(), potentials[1].detach())
    plan = plan_of(cost, potentials, epsilon)
    value = dual_of(a, b, potentials, plan, epsilon)
    with torch.no_grad():
        error = float(marginal_error(plan, a, b))
    if torch.is_grad_enabled() and any(one.requires_grad for one in (cost, a, b)):
        potentials = implicit_potentials(cost, a, b, potentials, plan.detach() / epsilon)
        plan = plan_of(cost, potentials, epsilon)
    paid = torch.linalg.vecdot(plan, cost).sum()
    return Transport(plan, potentials, value, paid, error, iterations, error <= tolerance, products)
