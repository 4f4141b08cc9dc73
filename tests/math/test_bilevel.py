"""Descent that keeps its promise, conjugate gradients, spectral norms, and hypergradients with their bound."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.math.bilevel import hypergradient
from tikhon.math.iterations import conjugate_gradients, minimised, spectral_norm
from tikhon.math.vectors import flattened

N, P = 40, 6


def regression(seed=0):
    """Ridge regression with a weight for each feature: lower, upper, the solution in closed form, and the convexity."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(N, P, generator=generator, dtype=torch.float64) for _ in range(2))
    y, z = (torch.randn(N, generator=generator, dtype=torch.float64) for _ in range(2))

    def lower(theta, x):
        return 0.5 * (a @ x - y).square().mean() + 0.5 * (theta.exp() * x.square()).sum()

    def upper(x):
        return 0.5 * (b @ x - z).square().mean()

    def solved(theta):
        return torch.linalg.solve(a.T @ a / N + torch.diag(theta.exp()), a.T @ y / N)

    def convexity(theta):
        return float(torch.linalg.eigvalsh(a.T @ a / N + torch.diag(theta.exp()))[0])

    return lower, upper, solved, convexity


def drawn(size, seed=1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("distance", [1.0, 1e-2, 1e-6, 1e-12])
@pytest.mark.parametrize("guess", [0.0, 1e-3, 1e3])
def test_the_minimiser_is_as_near_as_promised(distance, guess) -> None:
    lower, _, solved, convexity = regression()
    theta = drawn(P)
    found = minimised(lambda x: lower(theta, x), 10.0 * drawn(P, 2), convexity(theta), distance, smoothness=guess)
    assert found.reached
    assert (found.x - solved(theta)).norm() <= found.distance * (1 + 1e-3) <= distance * (1 + 1e-3)
    if distance == 1.0:
        assert found.distance > 1e-6  # it does no more than it must


def test_badly_conditioned_problems_are_solved_by_momentum() -> None:
    scales = torch.logspace(0, 5, 30, dtype=torch.float64)
    found = minimised(lambda x: 0.5 * (scales * (x - 1.0).square()).sum(), torch.zeros_like(scales), 1.0, 1e-6)
    assert (found.x - 1.0).norm() <= 1e-6
    assert found.evaluations < 10_000  # plain descent needs about a million


def test_minimising_ends_where_it_is_told_or_stalls_or_cannot_begin() -> None:
    target = torch.tensor([3.0], dtype=torch.float64)
    asked = []

    def enough(x, distance):
        assert (x - target).norm() <= distance * (1 + 1e-9)
        asked.append(distance)
        return len(asked) == 3

    def bowl(x):
        return (x - target).square().sum() + (x - target).pow(4).sum()

    found = minimised(bowl, torch.zeros_like(target), 2.0, 1e-12, enough=enough)
    assert found.reached
    assert found.distance == asked[-1] > 1e-12
    assert all(after < 0.5 * before for before, after in itertools.pairwise(asked))
    scales = torch.linspace(1.0, 30.0, 7)
    single = minimised(lambda x: (scales * (x - 0.3).square()).sum() + x.sin().sum(), torch.zeros(7), 1.0, 1e-30)
    assert not single.reached
    assert single.distance < 1e-4
    for function, convexity in ((lambda x: x.square().sum() / 0.0, 1.0), (bowl, 0.0), (bowl, math.nan)):
        lost = minimised(function, torch.ones(1, dtype=torch.float64), convexity, 0.1)
        assert not lost.reached
        assert lost.distance == math.inf


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_unknowns() -> None:
    root = drawn((5, 5))
    matrix, right = root @ root.T + torch.eye(5, dtype=torch.float64), drawn(5, 3)
    x, rest, used = conjugate_gradients(lambda v: matrix @ v, right, torch.zeros_like(right), 1e-10, limit=50)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, right))
    assert used <= 8
    assert rest <= 1e-10
    again, _, products = conjugate_gradients(lambda v: matrix @ v, right, x, 1e-9, limit=50)
    assert products == 1
    assert torch.equal(again, x)
    coarse, rest, _ = conjugate_gradients(lambda v: matrix @ v, right, torch.zeros_like(right), 0.5, limit=50)
    torch.testing.assert_close((right - matrix @ coarse).norm().item(), rest)
    assert rest <= 0.5


def test_spectral_norms_are_those_of_torch() -> None:
    matrix = drawn((6, 6))
    symmetric = matrix + matrix.T
    norm, vector = spectral_norm(lambda v: symmetric @ v, drawn(6, 4), rounds=300)
    torch.testing.assert_close(norm, torch.linalg.matrix_norm(symmetric, 2).item())
    again, _ = spectral_norm(lambda v: symmetric @ v, vector, rounds=1)
    torch.testing.assert_close(again, norm)
    assert spectral_norm(lambda v: 0.0 * v, drawn(6), rounds=5)[0] == 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("accuracy", [0.3, 1e-2, 1e-4, 1e-8])
def test_the_hypergradient_of_ridge_regression_is_within_its_bound(seed, accuracy) -> None:
    lower, upper, solved, convexity = regression(seed)
    theta = drawn(P, seed)
    exact = torch.func.grad(lambda at: upper(solved(at)))(theta)
    mu = convexity(theta)
    direction = drawn(P, seed + 10)
    x = solved(theta) + accuracy * direction / direction.norm()
    found = hypergradient(lower, upper, theta, x, mu, accuracy, accuracy)
    missed = (found.gradient - exact).norm()
    assert missed <= found.error
    assert found.error < 2e3 * missed  # and the bound says something
    assert found.residual <= accuracy
    warm = hypergradient(lower, upper, theta, x, mu, accuracy, accuracy, found.adjoint, found.norms)
    assert warm.products < found.products
    torch.testing.assert_close(warm.gradient, found.gradient)
    torch.testing.assert_close(warm.error, found.error, rtol=0.1, atol=0.0)


def test_the_bound_holds_where_the_lower_problem_is_not_quadratic() -> None:
    inputs, labels = drawn((N, P)), (drawn(N, 5) > 0).double()

    def lower(theta, x):
        loss = F.binary_cross_entropy_with_logits(inputs @ x, labels)
        return loss + 0.5 * (theta.exp() * x.square()).sum()

    def upper(x):
        return F.binary_cross_entropy_with_logits(inputs.flip(0) @ x, labels)

    theta = drawn(P) - 2.0
    mu = theta.exp().min().item()

    def solved(at):
        return minimised(lambda x: lower(at, x), torch.zeros(P, dtype=torch.float64), mu, 1e-11).x

    exact = torch.zeros(P, dtype=torch.float64)
    for i, unit in enumerate(torch.eye(P, dtype=torch.float64)):
        exact[i] = (upper(solved(theta + 1e-4 * unit)) - upper(solved(theta - 1e-4 * unit))) / 2e-4
    close = hypergradient(lower, upper, theta, solved(theta), mu, 1e-11, 1e-11)
    torch.testing.assert_close(close.gradient, exact, rtol=1e-5, atol=1e-8)
    for accuracy in (0.1, 1e-2, 1e-3):
        for seed in range(5):
            direction = drawn(P, 20 + seed)
            x = solved(theta) + accuracy * direction / direction.norm()
            found = hypergradient(lower, upper, theta, x, mu, accuracy, accuracy)
            assert (found.gradient - close.gradient).norm() <= found.error


def test_nests_are_vectors_and_back() -> None:
    nest = {"w": drawn((2, 3)), "b": [drawn(1), drawn(())]}
    vector, nested = flattened(nest, "x")
    assert vector.shape == (8,)
    back = nested(vector)
    assert torch.equal(back["w"], nest["w"])
    assert torch.equal(back["b"][1], nest["b"][1])
    for wrong in ({}, {"a": 1.0}, torch.ones(2, dtype=torch.int64), "x"):
        with pytest.raises(TikhonError, match="x must be a floating-point tensor"):
            flattened(wrong, "x")
    with pytest.raises(TikhonError, match="one type"):
        flattened([torch.zeros(1), torch.zeros(1, dtype=torch.float64)], "x")
