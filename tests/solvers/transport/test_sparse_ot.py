"""Sparse transport: supports by brute force, quadratic and exact transport as limits, gradients, and wrong input."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

import tikhon
from tikhon import TikhonError
from tikhon.solvers.transport.sparse_ot import _full_columns, delta_omega, max_omega, sparse_columns, sparse_ot


def problem(n=12, m=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(size, 2, generator=generator, dtype=torch.float64) for size in (n, m))
    a, b = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.2 for size in (n, m))
    return torch.cdist(x, y).square(), a / a.sum(), b / b.sum()


def exact(cost, a, b):
    n, m = cost.shape
    sums = np.vstack([np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))])
    return linprog(cost.numpy().ravel(), A_eq=sums, b_eq=torch.cat([a, b]).numpy()).fun


def entries(plan):
    return int((plan > 0).sum(0).max())


def gauge(v, t, gamma):
    return float(v @ t - 0.5 * gamma * t @ t)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_columns_are_the_best_over_all_supports(k) -> None:
    generator = torch.Generator().manual_seed(k)
    v, b, gamma = torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.tensor([0.2, 0.5, 1.0, 3.0]), 0.7
    b = b.double()
    found = sparse_columns(v, b, gamma, k)
    torch.testing.assert_close(found.sum(0), b)
    assert entries(found) <= k
    for j in range(4):
        best = -np.inf
        for support in map(list, combinations(range(5), k)):
            start = np.full(k, float(b[j]) / k)
            part = v[support, j].numpy()
            result = minimize(
                lambda t, part=part: -(part @ t - 0.5 * gamma * t @ t),
                start,
                bounds=[(0, None)] * k,
                constraints={"type": "eq", "fun": lambda t, j=j: t.sum() - float(b[j])},
                method="SLSQP",
                options={"ftol": 1e-13},
            )
            best = max(best, -result.fun)
        assert gauge(v[:, j], found[:, j], gamma) == pytest.approx(best, abs=1e-7)
        assert float(b[j] * max_omega(v, b, gamma, k)[j]) == pytest.approx(best, abs=1e-7)


def test_the_conjugate_is_the_best_over_all_masses() -> None:
    v = torch.tensor([[1.5, -1.0], [1.0, -2.0], [-0.5, -3.0]], dtype=torch.float64)
    masses = torch.linspace(1e-6, 20.0, 200_001, dtype=torch.float64)
    for k in (1, 2, 3):
        columns = v[:, :1].expand(3, len(masses))
        best = (masses * max_omega(columns, masses, 0.3, k)).max()
        torch.testing.assert_close(delta_omega(v, 0.3, k)[0], best, rtol=1e-7, atol=0.0)
        assert delta_omega(v, 0.3, k)[1] == 0.0


def test_quadratic_transport_meets_both_marginals_and_its_dual_is_tight() -> None:
    cost, a, b = problem()
    for gamma in (1.0, 0.1, 0.01):
        found = sparse_ot(cost, a, b, gamma=gamma)
        assert found.converged
        assert float((found.plan.sum(1) - a).abs().sum() + (found.plan.sum(0) - b).abs().sum()) < 1e-9
        primal = found.cost + 0.5 * gamma * found.plan.square().sum()
        torch.testing.assert_close(found.value, primal, rtol=1e-9, atol=0.0)
        f, g = found.potentials
        torch.testing.assert_close(found.plan, (f[:, None] + g - cost).clamp_min(0.0) / gamma)


def test_entries_are_never_exceeded_and_the_value_falls_with_k() -> None:
    cost, a, b = problem()
    values = []
    for k in (1, 2, 3, 4, 12):
        found = sparse_ot(cost, a, b, k, gamma=1.0)
        assert entries(found.plan) <= k
        torch.testing.assert_close(found.plan.sum(0), b)
        off = float((found.plan.sum(1) - a).abs().sum() + (found.plan.sum(0) - b).abs().sum())
        assert found.marginal_error == pytest.approx(off, abs=1e-12)
        values.append(float(found.value))
    unbounded = sparse_ot(cost, a, b, gamma=1.0)
    assert entries(unbounded.plan) > 4
    assert values[0] > values[1] > values[2] > values[3] > values[4] - 1e-12
    assert values[4] == pytest.approx(float(unbounded.value), rel=1e-9)


def test_one_entry_is_exact_transport() -> None:
    cost, a, b = problem()
    # with one entry the squares are those of b, whatever the plan: what is left of the value is the linear program's
    program = exact(cost, a, b)
    value = float(sparse_ot(cost, a, b, 1, gamma=0.1).value - 0.05 * b.square().sum())
    assert 0.995 * program <= value <= program * (1.0 + 1e-9)
    square, _, _ = problem(20, 20)
    assigned = sparse_ot(square, k=1, gamma=0.1)
    assert assigned.converged
    even = torch.full((20,), 0.05, dtype=torch.float64)
    assert float(assigned.cost) == pytest.approx(exact(square, even, even), rel=1e-9)
    assert entries(assigned.plan.T) == 1


def test_the_gradient_of_the_value_is_that_of_solving_again() -> None:
    cost, a, b = problem(6, 5)
    arguments = [one.clone().requires_grad_() for one in (cost, a, b)]
    gradients = torch.autograd.grad(sparse_ot(*arguments, gamma=0.2).value, arguments)
    generator = torch.Generator().manual_seed(3)
    moves = [torch.randn(one.shape, generator=generator, dtype=torch.float64) for one in (cost, a, b)]
    moves = [moves[0], *(1e-2 * (move - move.mean()) for move in moves[1:])]  # the masses stay equal
    for moved, gradient, place in zip(moves, gradients, range(3), strict=True):
        ends = []
        for sign in (1.0, -1.0):
            changed = [cost, a, b]
            changed[place] = changed[place] + sign * 1e-5 * moved
            ends.append(float(sparse_ot(*changed, gamma=0.2, tolerance=1e-12).value))
        assert float((gradient * moved).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(("k", "gamma"), [(None, 0.3), (4, 3.0)])
def test_the_gradient_of_the_plan_is_that_of_solving_again(k, gamma) -> None:
    given = problem(6, 6)
    settings = {"k": k, "gamma": gamma, "tolerance": 1e-13}
    arguments = [one.clone().requires_grad_() for one in given]
    found = sparse_ot(*arguments, **settings)
    assert found.marginal_error < 1e-12
    assert (entries(found.plan) == k) == (k is not None)
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad((weights * found.plan).sum(), arguments)
    assert gradients[0].abs().max() > 0.1
    for place, gradient in enumerate(gradients):
        move = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        move = move if place == 0 else move - move.mean()  # the masses stay equal
        ends = []
        for sign in (1.0, -1.0):
            changed = list(given)
            changed[place] = changed[place] + sign * 1e-5 * move
            ends.append(float((weights * sparse_ot(*changed, **settings).plan).sum()))
        assert float((gradient * move).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("gamma", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize(("n", "m"), [(150, 150), (200, 40)])
def test_quadratic_transport_converges_however_few_entries_it_has(n, m, gamma) -> None:
    found = sparse_ot(*problem(n, m), gamma=gamma)
    assert found.converged
    assert found.iterations < 300
    primal = found.cost + 0.5 * gamma * found.plan.square().sum()
    torch.testing.assert_close(found.value, primal, rtol=1e-8, atol=0.0)


def test_costs_are_free_up_to_a_constant_and_a_unit() -> None:
    cost, a, b = problem()
    plan = sparse_ot(cost, a, b, gamma=0.1).plan
    for unit in (1e-6, 1e6):
        torch.testing.assert_close(sparse_ot(unit * cost, a, b, gamma=unit * 0.1).plan, plan, rtol=0.0, atol=1e-8)
    moved = sparse_ot(cost + 1e4, a, b, gamma=0.1)
    assert moved.converged
    torch.testing.assert_close(moved.plan, plan, rtol=0.0, atol=1e-8)


def test_where_k_leaves_nothing_out_it_changes_nothing() -> None:
    cost, a, b = problem(60, 60)
    free = sparse_ot(cost, a, b, gamma=0.1)
    bounded = sparse_ot(cost, a, b, entries(free.plan), gamma=0.1)
    assert bounded.converged
    torch.testing.assert_close(bounded.plan, free.plan, rtol=0.0, atol=1e-9)


def test_tolerance_is_what_the_climb_with_k_is_content_with() -> None:
    cost, a, b = problem(60, 60)
    loose, tight = (sparse_ot(cost, a, b, 2, gamma=1.0, tolerance=tolerance) for tolerance in (1e-2, 1e-9))
    assert not tight.converged
    assert loose.iterations < tight.iterations
    assert loose.value <= tight.value + 1e-12
    assert loose.value == pytest.approx(float(tight.value), rel=1e-2)


def test_float32_is_solved_as_float64() -> None:
    cost, a, b = problem()
    single = sparse_ot(cost.float(), a.float(), b.float(), gamma=0.1)
    assert single.plan.dtype == torch.float32
    assert single.converged
    torch.testing.assert_close(single.plan.double(), sparse_ot(cost, a, b, gamma=0.1).plan, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "whole number"),
        ({"k": 13}, "whole number"),
        ({"k": 2.0}, "whole number"),
        ({"gamma": 0.0}, "gamma"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"a": torch.full((12,), 1.0)}, "same mass"),
        ({"a": torch.full((11,), 1.0)}, "must be"),
        ({"b": -torch.ones(9)}, "positive"),
    ],
)
def test_what_is_no_problem_is_refused(arguments, message) -> None:
    cost, a, b = problem()
    with pytest.raises(TikhonError, match=message):
        tikhon.sparse_ot(**({"cost": cost, "a": a, "b": b} | arguments))
    with pytest.raises(TikhonError, match="finite"):
        tikhon.sparse_ot(cost / 0.0)
    with pytest.raises(TikhonError, match="cost matrix"):
        tikhon.sparse_ot(cost[0])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_without_k_thresholds_by_newtons_method_end_and_are_those_of_the_sort(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        v = scale * torch.randn(64, 64, generator=generator, dtype=torch.float64)
        b = torch.rand(64, generator=generator, dtype=torch.float64)
        v[:3], b[0] = v[3], 0.0  # ties, and a column without mass
        torch.testing.assert_close(_full_columns(v, b, 0.5), sparse_columns(v, b, 0.5, None), rtol=1e-9, atol=1e-9)
