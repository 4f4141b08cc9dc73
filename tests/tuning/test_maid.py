"""MAID: known optima from poor starts, against closed forms and BFGS; promises; resuming; wrong input."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tikhon import MAID, TikhonError
from tikhon.core.errors import Diverged

M = 4


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic():
    """Both levels quadratic, the upper one convex in theta too: lower, upper, convexity, optimum and its value."""
    a, b, c = drawn(20, M, seed=1), drawn(20, M, seed=2), drawn(M, M, seed=3)
    y, z = drawn(20, seed=4), drawn(20, seed=5)
    jacobian = torch.linalg.solve(a.T @ a, a.T @ a @ c)
    offset = torch.linalg.solve(a.T @ a, a.T @ y)
    best = torch.linalg.lstsq(b @ jacobian, (z - b @ offset)[:, None]).solution[:, 0]

    def lower(theta, x):
        return 0.5 * (a @ (x - c @ theta) - y).square().sum() / 20

    def upper(x):
        return 0.5 * (b @ x - z).square().sum() / 20

    return lower, upper, float(torch.linalg.eigvalsh(a.T @ a / 20)[0]), best, float(upper(jacobian @ best + offset))


@pytest.mark.parametrize("accuracy", [1e-10, 0.1, 1e6])
@pytest.mark.parametrize("step", [1e-4, 1.0, 1e8])
def test_it_reaches_the_optimum_from_poor_starts(accuracy, step) -> None:
    lower, upper, convexity, best, value = quadratic()
    maid = MAID(lower, upper, convexity, accuracy=accuracy, residual=accuracy, step=step)
    found = maid.solve(torch.full((M,), 5.0, dtype=torch.float64), 100.0 * drawn(M), iterations=400, tolerance=1e-4)
    assert found.converged
    assert (found.theta - best).norm() < 5e-3
    assert abs(found.trace[-1].upper - value) < 1e-5
    assert all(one.error <= (1 - 1e-4) * one.gradient for one in found.trace)
    assert found.trace[-1].evaluations > 0


def ridge():
    """Ridge regression with two weights, of two groups of features, and the exact objective."""
    a, b = drawn(30, 6, seed=1), drawn(200, 6, seed=2)
    truth = torch.tensor([1.0, -1.0, 1.0, 0.2, -0.2, 0.1], dtype=torch.float64)
    y, z = a @ truth + 2.0 * drawn(30, seed=3), b @ truth + 2.0 * drawn(200, seed=4)
    gram = a.T @ a / 30

    def lower(theta, x):
        return 0.5 * (a @ x - y).square().mean() + 0.5 * (theta["log_weight"].exp().repeat_interleave(3) * x**2).sum()

    def upper(x):
        return 0.5 * (b @ x - z).square().mean()

    def exact(theta):
        return upper(torch.linalg.solve(gram + torch.diag(theta.exp().repeat_interleave(3)), a.T @ y / 30))

    lowest = float(torch.linalg.eigvalsh(gram)[0])
    return lower, upper, (lambda theta: lowest + theta["log_weight"].exp().min()), exact


@pytest.mark.parametrize("step", [1e-2, 1.0, 30.0])
def test_it_finds_the_weights_that_bfgs_and_a_grid_find(step) -> None:
    lower, upper, convexity, exact = ridge()

    def value(theta):
        slope, loss = torch.func.grad_and_value(exact)(torch.from_numpy(theta))
        return loss.item(), slope.numpy()

    best = minimize(value, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9})
    grid = [torch.tensor([i, j]) for i in torch.linspace(-6, 4, 41) for j in torch.linspace(-6, 4, 41)]
    assert min(float(exact(theta.double())) for theta in grid) >= best.fun - 1e-9
    start = {"log_weight": torch.tensor([-3.0, -3.0], dtype=torch.float64)}
    found = MAID(lower, upper, convexity, step=step).solve(start, drawn(6), iterations=200, tolerance=1e-4)
    assert found.converged
    theta = found.theta["log_weight"]
    assert torch.func.grad(exact)(theta).norm() <= 1e-4  # what the tolerance promises
    assert float(exact(theta)) - best.fun < 1e-5


def test_every_step_lowers_the_exact_objective() -> None:
    lower, upper, convexity, exact = ridge()
    start = {"log_weight": torch.tensor([-3.0, -3.0], dtype=torch.float64)}
    maid = MAID(lower, upper, convexity, accuracy=10.0, residual=10.0, step=30.0)
    values = [float(exact(start["log_weight"]))]
    found = maid.solve(start, 10.0 * drawn(6), iterations=1)
    for _ in range(15):
        values.append(float(exact(found.theta["log_weight"])))
        found = maid.solve(iterations=1, tolerance=1e-9)
    assert all(after < before for before, after in itertools.pairwise(values))


def test_a_coarse_answer_is_cheaper_than_a_fine_one() -> None:
    lower, upper, convexity, _, _ = quadratic()

    def evaluations(accuracy):
        maid = MAID(lower, upper, convexity, accuracy=accuracy, residual=accuracy)
        found = maid.solve(torch.full((M,), 5.0, dtype=torch.float64), drawn(M), iterations=10)
        return found.trace[-1].evaluations, found.trace[-1].upper

    (coarse, loss), (fine, same) = evaluations(0.1), evaluations(1e-10)
    assert 2 * coarse < fine
    assert loss < 1.1 * same


def test_the_adjoint_and_accuracies_adapt() -> None:
    lower, upper, convexity, _, _ = quadratic()
    maid = MAID(lower, upper, convexity, accuracy=1e4, residual=1e4)
    found = maid.solve(torch.full((M,), 5.0, dtype=torch.float64), drawn(M), iterations=3, tolerance=1e-9)
    assert found.ended == "iterations"
    assert found.trace[0].accuracy < 1e4  # refined before the first step
    assert found.trace[1].accuracy in (1.05 * found.trace[0].accuracy * 0.5**k for k in range(40))


def test_it_resumes_to_the_bit() -> None:
    lower, upper, convexity, _ = ridge()
    start = {"log_weight": torch.zeros(2, dtype=torch.float64)}
    whole = MAID(lower, upper, convexity).solve(start, drawn(6), iterations=9, tolerance=1e-9)
    half = MAID(lower, upper, convexity)
    half.solve(start, drawn(6), iterations=4, tolerance=1e-9)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = MAID(lower, upper, convexity, step=77.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    found = resumed.solve(iterations=5, tolerance=1e-9)
    assert found.trace == whole.trace
    assert torch.equal(found.theta["log_weight"], whole.theta["log_weight"])
    assert torch.equal(found.x, whole.x)
    assert MAID(lower, upper, convexity).state_dict() == {}


def test_what_rounding_allows_ends_it() -> None:
    lower, upper, convexity, best, _ = quadratic()
    found = MAID(lower, upper, convexity).solve(0.0 * best, drawn(M), iterations=2000, tolerance=1e-30)
    assert found.ended == "accuracy"
    assert (found.theta - best).norm() < 1e-5


def test_steps_into_nowhere_are_shortened() -> None:
    def lower(theta, x):  # overflows beyond theta = 700, has no minimum below 0
        return 0.5 * (theta.exp() * (x - 1.0).square()).sum() + 0.5 * x.square().sum()

    target = torch.tensor([0.5], dtype=torch.float64)  # at theta = 0
    maid = MAID(lower, lambda x: (x - target).square().sum(), 1.0, step=1e6)
    found = maid.solve(torch.full((1,), -2.0, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    assert found.converged
    assert abs(float(found.theta)) < 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accuracy": 0.0}, "must be positive"),
        ({"step": math.inf}, "must be positive"),
        ({"eta": 1.0}, "between 0 and 1"),
        ({"relax": 0.9}, "at least 1"),
        ({"refine": 0.0}, "between 0 and 1"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    lower, upper, convexity, _, _ = quadratic()
    with pytest.raises(TikhonError, match=message):
        MAID(lower, upper, convexity, **options)


def test_wrong_problems_are_refused() -> None:
    lower, upper, convexity, best, _ = quadratic()
    maid = MAID(lower, upper, convexity)
    with pytest.raises(TikhonError, match="Pass theta and x"):
        maid.solve()
    with pytest.raises(TikhonError, match="Pass theta and x"):
        maid.solve(best)
    with pytest.raises(TikhonError, match="theta must be a floating-point tensor"):
        maid.solve(3, best)
    with pytest.raises(TikhonError, match="tolerance"):
        maid.solve(best, best, tolerance=0.0)
    with pytest.raises(TikhonError, match="convexity must be positive"):
        MAID(lower, upper, lambda theta: -1.0).solve(best, best)
    with pytest.raises(Diverged, match="not finite"):
        maid.solve(best, torch.full_like(best, math.nan))
