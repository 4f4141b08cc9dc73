"""Sinkhorn and Sinkhorn-Newton-Sparse: each other, linear programming, underflow, iterations, and wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import tikhon
from tikhon import TikhonError
from tikhon.math.sinkhorn import dual_value, entropic_cost, plan_of, sinkhorn, sinkhorn_step
from tikhon.solvers.transport.sinkhorn_newton_sparse import newton_direction, sinkhorn_newton_sparse, sparsified


def points(n=200, m=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(size, 2, generator=generator, dtype=torch.float64) for size in (n, m or n))
    return torch.cdist(x, y).square()


def off(plan, a=None, b=None):
    n, m = plan.shape
    a = torch.full((n,), 1.0 / n, dtype=plan.dtype) if a is None else a
    b = torch.full((m,), 1.0 / m, dtype=plan.dtype) if b is None else b
    return float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())


def plain_sinkhorn(cost, epsilon, iterations):
    """The textbook's, with scalings of exp(-C / epsilon)."""
    kernel = torch.exp(-cost / epsilon)
    u = torch.ones_like(cost[:, 0])
    for _ in range(iterations):
        v = 1.0 / cost.shape[1] / (kernel.T @ u)
        u = 1.0 / cost.shape[0] / (kernel @ v)
    return u[:, None] * kernel * v


@pytest.mark.parametrize("seed", range(3))
def test_it_meets_the_marginals_in_a_fifth_of_the_iterations_of_sinkhorn(seed) -> None:
    cost = points(seed=seed)
    fast = sinkhorn_newton_sparse(cost, epsilon=1e-3, tolerance=1e-10)
    assert fast.converged
    assert off(fast.plan) < 1e-10
    slow = sinkhorn(cost, epsilon=1e-3, tolerance=1e-10, iterations=5 * fast.iterations)
    assert not slow.converged
    assert slow.marginal_error > 1e-10


def test_both_give_the_plan_of_textbook_scalings() -> None:
    cost, epsilon = points(12, 9), 0.1
    generator = torch.Generator().manual_seed(1)
    for solver in (sinkhorn, sinkhorn_newton_sparse):
        found = solver(cost, epsilon=epsilon, tolerance=1e-12)
        torch.testing.assert_close(found.plan, plain_sinkhorn(cost, epsilon, 2000), rtol=1e-8, atol=1e-14)
        entropy = (found.plan * found.plan.log()).sum()
        torch.testing.assert_close(found.value, found.cost + epsilon * entropy, rtol=1e-9, atol=0.0)
        a, b = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.1 for size in (12, 9))
        a, b = a / a.sum(), b / b.sum()
        uneven = solver(cost, a, b, epsilon)
        assert uneven.converged
        assert off(uneven.plan, a, b) == pytest.approx(uneven.marginal_error, abs=1e-14)


def test_both_tend_to_the_best_assignment() -> None:
    cost = points(30)
    rows, columns = linear_sum_assignment(cost.numpy())
    best = float(cost[rows, columns].mean())
    costs = []
    for epsilon in (1e-2, 1e-3, 3e-4):
        found = sinkhorn_newton_sparse(cost, epsilon=epsilon)
        assert found.converged
        costs.append(float(found.cost) - best)
    assert costs[0] > costs[1] > costs[2] > -1e-9
    assert costs[2] < 1e-3 * best
    assert float(sinkhorn(cost, epsilon=1e-2).cost) - best == pytest.approx(costs[0], abs=1e-9)


def test_float32_holds_where_scalings_underflow() -> None:
    cost = points(50) + 1.0
    exact = sinkhorn_newton_sparse(cost, epsilon=5e-3)
    assert exact.converged
    scaled = plain_sinkhorn(cost.float(), 5e-3, 200)
    assert not scaled.isfinite().all()
    for solver in (sinkhorn, sinkhorn_newton_sparse):
        single = solver(cost.float(), epsilon=5e-3)
        assert single.converged
        assert single.plan.dtype == torch.float32
        torch.testing.assert_close(single.value.double(), exact.value, rtol=1e-5, atol=0.0)
        torch.testing.assert_close(single.plan.double(), exact.plan, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("iterations", [1, 2, 60])
def test_products_follow_the_log_domain_where_factors_are_rescaled_again_and_again(iterations) -> None:
    cost = 20.0 * points(40)
    even = torch.full((40,), 1 / 40, dtype=torch.float64)
    for epsilon in (0.001, 10.0):  # far beyond what float32 holds, and within it from the start
        f = torch.zeros(40, dtype=torch.float64)
        for _ in range(iterations):
            f, g = sinkhorn_step(cost, even, even, f, epsilon)
        plan = plan_of(cost, (f, g), epsilon)
        value = float(dual_value(cost, even, even, (f, g), epsilon))
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-2)):
            found = sinkhorn(cost.to(dtype), epsilon=epsilon, tolerance=1e-300, iterations=iterations)
            assert found.iterations == iterations
            assert float((found.plan - plan).abs().sum()) < tolerance
            loss = entropic_cost(cost.to(dtype), even.to(dtype), even.to(dtype), epsilon, iterations)
            assert float(loss) == pytest.approx(value, rel=1e-3 * tolerance)


def test_the_step_is_newtons_when_nothing_is_left_out() -> None:
    cost, epsilon = points(6, 5), 0.1
    a, b = torch.full((6,), 1 / 6, dtype=torch.float64), torch.full((5,), 1 / 5, dtype=torch.float64)
    plan = sinkhorn(cost, epsilon=epsilon, iterations=2).plan
    potentials = [torch.zeros(6, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)]

    def dual(f, g):
        # of the plan times exp((f + g) / epsilon): its derivatives at 0 are those at the plan's potentials
        return a @ f + b @ g - epsilon * (plan * ((f[:, None] + g) / epsilon).exp()).sum()

    gradient = torch.cat(torch.autograd.functional.jacobian(dual, tuple(potentials)))
    blocks = torch.autograd.functional.hessian(dual, tuple(potentials))
    hessian = torch.cat([torch.cat(row, 1) for row in blocks])
    found, _ = newton_direction(plan, a, b, epsilon, density=1.0)
    left = hessian @ torch.cat(found) + gradient  # solved to a tenth or better, by conjugate gradients
    assert left.norm() <= 0.1 * gradient.norm() * 1.0001
    assert not torch.cat(found).allclose(torch.zeros(11, dtype=torch.float64))


def test_the_hessian_keeps_the_largest_entries() -> None:
    plan = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    rows, columns, values = sparsified(plan, 0.25)
    assert len(values) == 9
    assert torch.equal(plan[rows, columns], values)
    assert values.min() >= plan.flatten().sort(descending=True).values[8]
    assert len(sparsified(plan, 1e-9)[2]) == 1


def test_a_sparser_hessian_takes_more_iterations() -> None:
    cost = points(60)
    dense, sparse = (sinkhorn_newton_sparse(cost, epsilon=1e-2, density=share) for share in (1.0, 0.05))
    assert dense.converged
    assert dense.iterations < sparse.iterations


def test_newtons_iterations_do_not_grow_with_the_points_but_with_what_a_fixed_number_of_entries_leaves_out() -> None:
    for n in (128, 512):
        cost = points(n)
        counted, fixed = (sinkhorn_newton_sparse(cost, epsilon=5e-3, density=share) for share in (None, 15 / n))
        assert counted.converged
        assert counted.iterations <= 20 + 10
        if n == 512:
            assert fixed.iterations > 20 + 30


def test_what_did_not_converge_says_so() -> None:
    for solver in (sinkhorn, sinkhorn_newton_sparse):
        found = solver(points(), epsilon=1e-3, iterations=10)
        assert not found.converged
        assert found.iterations == 10
        assert found.marginal_error == pytest.approx(off(found.plan), rel=1e-6)


@pytest.mark.parametrize("solver", [sinkhorn, sinkhorn_newton_sparse])
def test_the_gradient_of_the_value_is_that_of_solving_again(solver) -> None:
    cost = points(6, 5)
    a, b = torch.full((6,), 1 / 6, dtype=torch.float64), torch.full((5,), 1 / 5, dtype=torch.float64)
    arguments = [one.clone().requires_grad_() for one in (cost, a, b)]
    gradients = torch.autograd.grad(solver(*arguments, epsilon=0.1, tolerance=1e-12).value, arguments)
    generator = torch.Generator().manual_seed(3)
    moves = [torch.randn(one.shape, generator=generator, dtype=torch.float64) for one in (cost, a, b)]
    moves = [moves[0], *(1e-2 * (move - move.mean()) for move in moves[1:])]  # the masses stay equal
    for place, (move, gradient) in enumerate(zip(moves, gradients, strict=True)):
        ends = []
        for sign in (1.0, -1.0):
            changed = [cost, a, b]
            changed[place] = changed[place] + sign * 1e-4 * move
            ends.append(float(solver(*changed, epsilon=0.1, tolerance=1e-12).value))
        assert float((gradient * move).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("solver", [sinkhorn, sinkhorn_newton_sparse])
def test_the_gradient_of_plan_and_potentials_is_that_of_unrolled_iterations(solver) -> None:
    cost, generator = points(6, 5), torch.Generator().manual_seed(4)
    a, b = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.3 for size in (6, 5))
    arguments = [one.clone().requires_grad_() for one in (cost, a / a.sum(), b / b.sum())]
    weights = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    found = solver(*arguments, epsilon=0.1, tolerance=1e-13)
    kernel, v = torch.exp(-arguments[0] / 0.1), torch.ones(5, dtype=torch.float64)
    for _ in range(300):
        u = arguments[1] / (kernel @ v)
        v = arguments[2] / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    sums = 0.1 * (u.log()[:, None] + v.log())
    for ours, theirs in (
        (found.plan, plan),
        (found.potentials[0][:, None] + found.potentials[1], sums),
        (found.cost * torch.ones_like(plan), (plan * arguments[0]).sum() * torch.ones_like(plan)),
    ):
        one = torch.autograd.grad((weights * ours).sum(), arguments, retain_graph=True)
        other = torch.autograd.grad((weights * theirs).sum(), arguments, retain_graph=True)
        torch.testing.assert_close(one[0], other[0], rtol=1e-7, atol=1e-9)
        for mine, unrolled in zip(one[1:], other[1:], strict=True):  # along changes that keep the masses equal
            torch.testing.assert_close(mine - mine.mean(), unrolled - unrolled.mean(), rtol=1e-7, atol=1e-9)


def test_a_fixed_number_of_iterations_is_a_lower_bound_that_closes() -> None:
    cost = points(20)
    even = torch.full((20,), 0.05, dtype=torch.float64)
    best = float(sinkhorn(cost, epsilon=0.02, tolerance=1e-12).value)
    gaps = np.array([best - float(entropic_cost(cost, even, even, 0.02, count)) for count in (1, 10, 100)])
    assert (gaps > -1e-12).all()
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"iterations": 0}, "iterations"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"warm_up": 0}, "warm_up"),
        ({"density": 0.0}, "density"),
        ({"density": 1.5}, "density"),
        ({"a": torch.full((4,), 0.5)}, "same mass"),
        ({"b": torch.tensor([1.0, 0.0, 0.0])}, "without mass"),
    ],
)
def test_what_is_no_problem_is_refused(arguments, message) -> None:
    with pytest.raises(TikhonError, match=message):
        tikhon.sinkhorn_newton_sparse(**({"cost": torch.rand(4, 3)} | arguments))
    with pytest.raises(TikhonError, match="floating-point"):
        tikhon.sinkhorn_newton_sparse(torch.ones(2, 2, dtype=torch.int64))
