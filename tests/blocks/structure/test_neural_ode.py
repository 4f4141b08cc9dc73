"""Neural ODEs: closed forms, SciPy's solver step by step, order conditions, gradients, arrival, and wrong input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

import tikhon
from tikhon import TikhonError
from tikhon.core.errors import Diverged
from tikhon.math.runge_kutta import TABLEAUS, attempted_step, rms, solve


class Linear(nn.Module):
    """dy/dt = A y."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(matrix, dtype=torch.float64))

    def forward(self, t, y):
        return y @ self.matrix.T


TURN = [[0.0, -4.0], [4.0, 0.0]]


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("name", TABLEAUS)
def test_the_tableaus_meet_the_conditions_of_orders_five_and_four(name) -> None:
    tableau = TABLEAUS[name]
    a = np.zeros((7, 7))
    for i, row in enumerate(tableau.stages):
        a[i + 1, : len(row)] = row
    c, b = np.array(tableau.times), a[6]
    lower = b - np.array(tableau.error)
    np.testing.assert_allclose(a.sum(1), c, atol=1e-14)
    trees = [  # (elementary weight by stage, what b must make of it): all rooted trees of up to five vertices
        (np.ones(7), 1), (c, 1 / 2), (c**2, 1 / 3), (a @ c, 1 / 6), (c**3, 1 / 4), (c * (a @ c), 1 / 8),
        (a @ c**2, 1 / 12), (a @ a @ c, 1 / 24), (c**4, 1 / 5), (c**2 * (a @ c), 1 / 10), (c * (a @ c**2), 1 / 15),
        (c * (a @ a @ c), 1 / 30), ((a @ c) ** 2, 1 / 20), (a @ c**3, 1 / 20), (a @ (c * (a @ c)), 1 / 40),
        (a @ a @ c**2, 1 / 60), (a @ a @ a @ c, 1 / 120),
    ]  # fmt: skip
    for weight, exact in trees:
        assert b @ weight == pytest.approx(exact, abs=1e-13)
    for weight, exact in trees[:8]:
        assert lower @ weight == pytest.approx(exact, abs=1e-13)
    assert abs(lower @ c**4 - 1 / 5) > 1e-5  # or it would estimate no error


@pytest.mark.parametrize("solver", TABLEAUS)
def test_a_rotation_is_the_matrix_exponential_and_its_stiffness_the_eigenvalue(solver) -> None:
    block = tikhon.NeuralODE(Linear(TURN), end=2.0, rtol=1e-9, atol=1e-9, solver=solver)
    x = drawn(5, 2)
    found = block.solve(x)
    exact = x @ torch.linalg.matrix_exp(2.0 * torch.tensor(TURN, dtype=torch.float64)).T
    torch.testing.assert_close(found.state, exact, rtol=1e-7, atol=1e-7)
    taken = found.sizes > 0
    torch.testing.assert_close(found.stiffness[taken], torch.full((int(taken.sum()),), 4.0, dtype=torch.float64))
    torch.testing.assert_close(found.sizes.sum(0), torch.full((5,), 2.0, dtype=torch.float64))
    assert (found.errors[taken] > 0).all()
    assert (found.errors < 1).all()


def test_every_sample_goes_as_scipys_solver_goes_alone() -> None:
    matrix = 1.5 * drawn(3, 3)
    x = 2.0 * drawn(4, 3)

    def field(t, y):
        return torch.tanh(y @ matrix.T) * (1.0 + torch.sin(3.0 * t)[:, None])

    found = solve(field, x, 0.0, 2.0, 1e-6, 1e-8, TABLEAUS["dopri5"])
    for i in range(4):
        alone = solve_ivp(
            lambda t, y: np.tanh(matrix.numpy() @ y) * (1.0 + math.sin(3.0 * t)),
            (0.0, 2.0), x[i].numpy(), rtol=1e-6, atol=1e-8,
        )  # fmt: skip
        np.testing.assert_allclose(found.state[i], alone.y[:, -1], rtol=1e-9)
        np.testing.assert_allclose(found.sizes[:, i][found.sizes[:, i] > 0], np.diff(alone.t), rtol=1e-6)
        assert found.evaluations[i] == alone.nfev
    assert len(set(found.evaluations.tolist())) > 1  # they do not go in step


def test_the_difference_of_orders_shrinks_with_the_fifth_power_of_the_step() -> None:
    field, y = Linear(TURN), drawn(3, 2)
    for tableau in TABLEAUS.values():
        sizes = [
            rms(attempted_step(field, torch.zeros(3), y, torch.full((3,), h).double(), field(None, y), tableau)[2])
            for h in (0.02, 0.01)
        ]
        torch.testing.assert_close(sizes[0] / sizes[1], torch.full((3,), 32.0).double(), rtol=0.05, atol=0.0)


def test_gradients_are_those_of_the_closed_form() -> None:
    field = Linear(TURN)
    block = tikhon.NeuralODE(field, end=0.7, rtol=1e-10, atol=1e-10)
    x = drawn(3, 2).requires_grad_()
    weights = drawn(3, 2)
    found = torch.autograd.grad((weights * block(x)).sum(), [x, field.matrix])
    exact = torch.autograd.grad(
        (weights * (x @ torch.linalg.matrix_exp(0.7 * field.matrix).T)).sum(), [x, field.matrix]
    )
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_the_error_estimate_has_the_gradient_of_a_step_of_fixed_length() -> None:
    field, x = Linear(TURN), drawn(1, 2)
    block = tikhon.NeuralODE(field, end=0.05, rtol=1e-4, atol=1e-4)
    found = block.solve(x)
    assert len(found.sizes) == 2
    gradient = torch.autograd.grad(found.errors.sum(), field.matrix)[0]
    y, slope, t, expected = x, field(None, x), torch.zeros(1).double(), 0.0
    for h in found.sizes:
        new, new_slope, difference, _ = attempted_step(field, t, y, h, slope, TABLEAUS["tsit5"])
        expected = expected + rms(difference / (1e-4 + 1e-4 * torch.maximum(y.abs(), new.abs()))).sum()
        y, slope, t = new, new_slope, t + h
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, field.matrix)[0])


def test_samples_at_rest_or_not_finite_neither_hang_nor_spoil_the_others() -> None:
    x = drawn(4, 2).requires_grad_()
    with torch.no_grad():
        x[1], x[2, 0] = 0.0, math.nan
    found = tikhon.NeuralODE(Linear(TURN)).solve(x)
    assert found.state[1].abs().max() == 0.0
    assert found.state[2].isnan().all()
    torch.testing.assert_close(found.state[3], tikhon.NeuralODE(Linear(TURN))(x[3:])[0])
    (gradient,) = torch.autograd.grad((found.state[[0, 1, 3]]).sum() + found.errors.sum(), x)
    assert gradient[[0, 1, 3]].isfinite().all()


def test_what_cannot_be_solved_is_refused() -> None:
    class Explosion(nn.Module):
        def forward(self, t, y):
            return y**2

    with pytest.raises(Diverged, match=r"2 of 2 samples had not arrived .* after 50 steps"):
        tikhon.NeuralODE(Explosion(), end=2.0, max_steps=50)(torch.ones(2, 1))
    for wrong, says in (({"end": 0.0}, "end"), ({"rtol": -1.0}, "rtol"), ({"atol": math.inf}, "atol"),
                        ({"solver": "euler"}, "'tsit5', 'dopri5'"), ({"max_steps": 0}, "max_steps")):  # fmt: skip
        with pytest.raises(TikhonError, match=says):
            tikhon.NeuralODE(Explosion(), **wrong)
    with pytest.raises(TikhonError, match="module that maps"):
        tikhon.NeuralODE(lambda t, y: y)
    with pytest.raises(TikhonError, match=r"states \(B, ...\)"):
        tikhon.NeuralODE(Explosion())(torch.ones(3))
