"""Optimal transport beside POT and geomloss: points in the plane, uniform masses, squared distances."""

from __future__ import annotations

import math
from collections.abc import Callable

import ot
import torch
from geomloss import SamplesLoss
from torch import Tensor

from benchmarks.harness import Pair, case
from tikhon.math.sinkhorn import entropic_cost, sinkhorn, sinkhorn_step
from tikhon.solvers.transport.sinkhorn_newton_sparse import sinkhorn_newton_sparse
from tikhon.solvers.transport.sparse_ot import sparse_ot

NEVER = 1e-300
"""A tolerance that no iteration meets, so that both sides do all of them."""
UNDERFLOW = (
    "In float32 POT's sinkhorn and its sinkhorn_stabilized return a plan of mass 0.001 and NaN here, after a warning; "
    "sinkhorn_log is right."
)


def problem(n: int, dtype: torch.dtype, gradient: bool = False) -> tuple[Tensor, Tensor]:
    """Costs (n, n) between points of the unit square, at most 2, and the masses (n,) of either side."""
    x, y = torch.rand(2, n, 2, dtype=dtype)
    return torch.cdist(x, y).square().requires_grad_(gradient), torch.full((n,), 1.0 / n, dtype=dtype)


def hundred_iterations(n: int, dtype: torch.dtype, method: str) -> Pair:
    cost, even = problem(n, dtype)
    return Pair(
        lambda: sinkhorn(cost, even, even, 0.05, NEVER, 100).plan,
        lambda: ot.sinkhorn(even, even, cost, 0.05, method=method, numItermax=100, stopThr=0.0, warn=False),
        tolerance=1e-4 if dtype == torch.float32 else 1e-9,
    )


@case("Sinkhorn plan, 500 x 500, float32, epsilon 0.05, 100 iterations", peer="POT")
def scalings_500() -> Pair:
    return hundred_iterations(500, torch.float32, "sinkhorn")


@case("Sinkhorn plan, 1,000 x 1,000, float32, epsilon 0.05, 100 iterations", peer="POT")
def scalings_1000() -> Pair:
    return hundred_iterations(1000, torch.float32, "sinkhorn")


@case("Sinkhorn plan, 1,000 x 1,000, float64, epsilon 0.05, 100 iterations", peer="POT")
def scalings_float64() -> Pair:
    return hundred_iterations(1000, torch.float64, "sinkhorn")


@case("Sinkhorn plan, 500 x 500, float32, log domain, 100 iterations", peer="POT")
def log_500() -> Pair:
    return hundred_iterations(500, torch.float32, "sinkhorn_log")


@case("Sinkhorn plan, 1,000 x 1,000, float32, log domain, 100 iterations", peer="POT")
def log_1000() -> Pair:
    return hundred_iterations(1000, torch.float32, "sinkhorn_log")


@case("Sinkhorn plan, 500 x 500, float32, costs up to 40,000 epsilon, 100 iterations", peer="POT", note=UNDERFLOW)
def small_epsilon() -> Pair:
    epsilon = 0.001
    x, y = torch.randn(500, 2), 0.5 + 0.7 * torch.randn(500, 2)
    cost, even = torch.cdist(x, y).square(), torch.full((500,), 1.0 / 500)

    def theirs(method: str = "sinkhorn_log") -> Tensor:
        return ot.sinkhorn(even, even, cost, epsilon, method=method, numItermax=100, stopThr=0.0, warn=False)

    def ours() -> Tensor:
        return sinkhorn(cost, even, even, epsilon, NEVER, 100).plan

    def same() -> bool:
        """Ours as close to float64 as the peer's log domain, and what the peer would do otherwise is no plan."""
        exact, shares = cost.double(), even.double()
        f = torch.zeros_like(shares)
        for _ in range(100):
            f, g = sinkhorn_step(exact, shares, shares, f, epsilon)
        true = ((f[:, None] + g - exact) / epsilon).exp()
        right, peer = (float((one.double() - true).abs().sum()) for one in (ours(), theirs()))
        lost = abs(float(theirs("sinkhorn").sum()) - 1.0) > 0.9
        return right <= max(0.01, 2.0 * peer) and lost

    return Pair(ours, theirs, same=same)


def to_convergence(n: int, mode: str, of_plan: bool = False) -> Pair:
    """Value and its gradient in the costs or, of_plan, the gradient of <P, R> for some R."""
    cost, even = problem(n, torch.float64, gradient=True)
    direction = torch.rand(n, n, dtype=torch.float64)

    def gradient(found: Tensor) -> tuple[Tensor, Tensor]:
        return found, torch.autograd.grad(found, cost)[0]

    def ours() -> tuple[Tensor, Tensor]:
        found = sinkhorn(cost, even, even, 0.05, 1e-9)
        return gradient((found.plan * direction).sum() if of_plan else found.value)

    def theirs() -> tuple[Tensor, Tensor]:
        found = ot.solve(
            cost, even, even, reg=0.05, reg_type="entropy", grad=mode, max_iter=10_000, tol=1e-9 / n**0.5
        )  # its tolerance is of the norm, ours of the sum of absolute values
        return gradient((found.plan * direction).sum() if of_plan else found.value)

    return Pair(ours, theirs, tolerance=1e-5)


@case("Sinkhorn value and gradient, 500 x 500, float64, to 1e-9", peer="POT", note="grad='envelope'")
def envelope() -> Pair:
    return to_convergence(500, "envelope")


@case("Sinkhorn value and gradient by autodiff, 500 x 500, float64, to 1e-9", peer="POT", note="grad='autodiff'")
def autodiff() -> Pair:
    return to_convergence(500, "autodiff")


@case("gradient of the Sinkhorn plan, 500 x 500, float64, to 1e-9", peer="POT", note="grad='autodiff'")
def plan_autodiff() -> Pair:
    return to_convergence(500, "autodiff", of_plan=True)


def loss_between(n: int, scaling: float, iterations: int, divergence: bool = False) -> Pair:
    """A loss between point clouds and its gradient; ours in as many iterations as make it no less accurate."""
    x, y, blur = torch.rand(n, 2).requires_grad_(), torch.rand(n, 2), 0.05
    theirs = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, debias=divergence, backend="tensorized")

    def transport(one: Tensor, other: Tensor, iterations: int) -> Tensor:
        """Of half the squared distances, as geomloss has them; its entropy is relative to the masses."""
        cost = 0.5 * (one.square().sum(1)[:, None] + other.square().sum(1)) - one @ other.T
        even = one.new_full((n,), 1.0 / n)
        return entropic_cost(cost, even, even, blur**2, iterations) + 2.0 * blur**2 * math.log(n)

    def ours(x: Tensor, y: Tensor, iterations: int = iterations) -> Tensor:
        between = transport(x, y, iterations)
        if not divergence:
            return between
        return between - 0.5 * (transport(x, x, iterations) + transport(y, y, iterations))

    def with_gradient(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        value = loss(x, y)
        return value, torch.autograd.grad(value, x)[0]

    def same() -> bool:
        """No further than the peer from 3,000 iterations in float64."""
        with torch.no_grad():
            true = ours(x.double(), y.double(), 3000)
            mine, other = (float((loss(x, y) - true).abs()) for loss in (ours, theirs))
        return mine <= other

    return Pair(lambda: with_gradient(ours), lambda: with_gradient(theirs), same=same)


@case("entropic loss of 1,000 points, gradient", peer="geomloss", note="its default scaling 0.5 is 5% off, ours 1%")
def loss() -> Pair:
    return loss_between(1000, 0.5, iterations=10)


@case("entropic loss of 1,000 points, gradient, accurate", peer="geomloss", note="scaling 0.9: both 0.06% off")
def accurate_loss() -> Pair:
    return loss_between(1000, 0.9, iterations=50)


@case(
    "Sinkhorn divergence of 1,000 points, gradient", peer="geomloss", note="its default scaling 0.5: 10% off, ours 6%"
)
def divergence() -> Pair:
    return loss_between(1000, 0.5, iterations=20, divergence=True)


@case("Sinkhorn divergence of 1,000 points, gradient, accurate", peer="geomloss", note="scaling 0.9: both 1% off")
def accurate_divergence() -> Pair:
    return loss_between(1000, 0.9, iterations=50, divergence=True)


def sparse_plan(n: int, k: int | None) -> Pair:
    """Quadratic transport in float64, and with at most k entries a column."""
    cost, even = problem(n, torch.float64)
    kind = {"reg_type": "l2"} if k is None else {"reg_type": "sparsity_constrained", "max_nz": k}
    masses, costs = even.numpy(), cost.numpy()

    def ours() -> Tensor:
        return sparse_ot(cost, even, even, k=k, gamma=1.0, tolerance=1e-3).plan

    def theirs() -> Tensor:
        return torch.from_numpy(ot.smooth.smooth_ot_dual(masses, masses, costs, 1.0, numItermax=1000, **kind))

    def same() -> bool:
        """No further from the masses than the peer's plan and as cheap, in as many entries at most."""
        mine, other = ours(), theirs()
        off = [float((one.sum(1) - even).abs().sum() + (one.sum(0) - even).abs().sum()) for one in (mine, other)]
        paid = [float((one * cost).sum() + 0.5 * one.square().sum()) for one in (mine, other)]
        entries = int((mine > 0).sum(0).max())
        return off[0] <= off[1] and paid[0] <= 1.01 * paid[1] and entries <= (k or len(even))

    return Pair(ours, theirs, same=same, numpy=True)


@case("quadratic transport, 500 x 500, float64", peer="POT", note="both to 1e-3 of the masses, where POT's stops")
def quadratic() -> Pair:
    return sparse_plan(500, None)


@case("transport with at most 5 entries a column, 100 x 100, float64", peer="POT", note="ours is closer to the masses")
def sparse() -> Pair:
    return sparse_plan(100, 5)


@case("Sinkhorn plan, 500 x 500, float64, epsilon 0.001, to 1e-9", peer="POT")
def newton() -> Pair:
    cost, even = problem(500, torch.float64)
    return Pair(
        lambda: sinkhorn_newton_sparse(cost, even, even, 1e-3, tolerance=1e-9).plan,
        lambda: ot.sinkhorn(even, even, cost, 1e-3, numItermax=20_000, stopThr=1e-9 / 500**0.5, warn=False),
        tolerance=1e-6,
    )
