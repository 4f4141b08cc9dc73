"""LV-HBA: the official example's optimum from poor starts, nested SLSQP, stability, resuming and wrong input."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tikhon import LVHBA, TikhonError
from tikhon.core.errors import Diverged


def example(n, **options):
    """The official code's example: x = -0.3, y = (0.7, -0.4) in every dimension; sums of all are 0."""

    def upper(x, y):
        return 0.5 * (x - y["b"]).square().sum() + 0.5 * (y["a"] - 1.0).square().sum()

    def lower(x, y):
        return 0.5 * y["a"].square().sum() - x @ y["a"] + y["b"].sum()

    def constraints(x, y):
        return (x.sum() + y["a"].sum() + y["b"].sum())[None]

    def project(x, y):
        mean = constraints(x, y)[0] / (3 * n)
        return x - mean, {name: part - mean for name, part in y.items()}

    return LVHBA(upper, lower, constraints, project=project, equality=True, **options)


def start(n, value):
    return torch.full((n,), value, dtype=torch.float64)


def both(n, value):
    return {"a": start(n, value), "b": start(n, value)}


@pytest.mark.parametrize(("n", "value"), [(1, 10.0), (3, -20.0), (5, 10.0)])
def test_the_example_is_solved_from_poor_starts(n, value) -> None:
    found = example(n, alpha=0.05, beta=0.05, eta=0.05, c=10.0).solve(start(n, value), both(n, value), steps=3000)
    assert (found.x + 0.3).abs().max() < 5e-3
    assert (found.y["a"] - 0.7).abs().max() < 5e-3
    assert (found.y["b"] + 0.4).abs().max() < 5e-3
    torch.testing.assert_close(found.multiplier, torch.tensor([-1.0], dtype=torch.float64), rtol=5e-3, atol=0.0)


def test_the_weight_of_upper_falls_and_with_it_the_error() -> None:
    errors = []
    for c in (1.0, 3.0, 10.0):
        found = example(1, alpha=0.05, beta=0.05, eta=0.05, c=c).solve(start(1, 1.0), both(1, 1.0), steps=2500)
        errors.append(float((found.x + 0.3).abs()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[-1]


def test_steps_that_are_too_long_are_an_error_that_says_so() -> None:
    with pytest.raises(Diverged, match=r"Lower eta \(0.01\)"):
        example(100, alpha=0.008, beta=0.02, eta=0.01, c=0.025).solve(start(100, 10.0), both(100, 10.0), steps=3000)
    # with shorter ones, the same example comes nearer for as long as one waits
    calm = example(100, alpha=0.0008, beta=0.0008, eta=0.0008, c=10.0)
    before = (calm.solve(start(100, 1.0), both(100, 1.0), steps=1).x + 0.3).norm()
    assert (calm.solve(steps=500).x + 0.3).norm() < before


def test_an_inequality_is_solved_as_nested_slsqp_does() -> None:
    """y = argmin (y1 - x)^2 / 2 + (y2 - 1)^2 / 2 where y1 + y2 <= 1; upper wants y1 at 1 and x small."""

    def lower(x, y):
        return 0.5 * (y[0] - x[0]) ** 2 + 0.5 * (y[1] - 1.0) ** 2

    def upper(x, y):
        return 0.5 * (y[0] - 1.0) ** 2 + 0.5 * y[1] ** 2 + 0.1 * x.square().sum()

    def constraints(x, y):
        return (y.sum() - 1.0)[None]

    def solved(x):
        inner = minimize(
            lambda y: lower(x, y),
            np.zeros(2),
            method="SLSQP",
            options={"ftol": 1e-14},
            constraints={"type": "ineq", "fun": lambda y: 1.0 - y.sum()},
        )
        return inner.x

    nested = minimize(lambda x: float(upper(torch.from_numpy(x), solved(x))), np.array([0.5]), method="Nelder-Mead")

    def project(x, y):
        return x, y - (y.sum() - 1.0).clamp_min(0.0) / 2

    search = LVHBA(
        upper, lower, constraints, project=project, alpha=0.05, beta=0.05, eta=0.05, gamma1=2.0, gamma2=2.0, c=4.0
    )
    found = search.solve(start(1, 4.0), start(2, -4.0), steps=4000)
    assert abs(float(found.x) - nested.x[0]) < 0.08
    np.testing.assert_allclose(found.y.numpy(), solved(nested.x), atol=0.04)
    assert float(found.multiplier) > 0.1  # the constraint binds


def test_projections_bind_every_iterate() -> None:
    search = LVHBA(
        lambda x, y: (y - 3.0).square().sum(),
        lambda x, y: 0.5 * (y - x).square().sum(),
        project=lambda x, y: (x.clamp(0.0, 1.0), y.clamp(0.0, 2.0)),
        project_lower=lambda theta: theta.clamp(0.0, 2.0),
        alpha=0.1,
        eta=0.1,
        c=10.0,
    )
    found = search.solve(start(2, 9.0), start(2, -9.0), steps=1500)
    assert torch.equal(found.x, start(2, 1.0))
    assert ((found.theta >= 0.0) & (found.theta <= 2.0)).all()
    assert found.multiplier.shape == (0,)
    torch.testing.assert_close(found.theta, start(2, 1.0), rtol=0.0, atol=0.1)


def test_it_resumes_to_the_bit() -> None:
    whole = example(2).solve(start(2, 1.0), both(2, 1.0), steps=60)
    half = example(2)
    half.solve(start(2, 1.0), both(2, 1.0), steps=25)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = example(2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    found = resumed.solve(steps=35)
    assert torch.equal(found.x, whole.x)
    assert torch.equal(found.y["b"], whole.y["b"])
    assert torch.equal(found.multiplier, whole.multiplier)
    assert example(2).state_dict() == {}


def test_the_first_step_is_the_papers() -> None:
    """Algorithm 1, by hand, at one point where all terms count."""
    options = {"alpha": 0.1, "beta": 0.2, "eta": 0.3, "gamma1": 2.0, "gamma2": 4.0, "c": 0.5}
    search = LVHBA(
        lambda x, y: (x * y).sum(),
        lambda x, y: (x * y.square()).sum(),
        lambda x, y: x + 2.0 * y,
        equality=True,
        **options,
    )
    x, y, k = 2.0, 1.0, 0
    theta, multiplier, z = y, 0.0, 0.0
    for k in range(3):
        slope = 2 * x * theta + 2 * multiplier + (theta - y) / 2.0
        held = x + 2 * theta
        theta, multiplier = theta - 0.3 * slope, multiplier + 0.3 * (held - (multiplier - z) / 4.0)
        weight = 1.0 / (0.5 * (k + 1) ** 0.3)
        down_x = weight * y + y**2 - theta**2 - multiplier
        down_y = weight * x + 2 * x * y - (y - theta) / 2.0
        x, y, z = x - 0.1 * down_x, y - 0.1 * down_y, z + 0.2 * (multiplier - z) / 4.0
    found = search.solve(start(1, 2.0), start(1, 1.0), steps=3)
    np.testing.assert_allclose([float(found.x), float(found.y), float(found.theta)], [x, y, theta])
    np.testing.assert_allclose(float(found.multiplier), multiplier)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"gamma2": math.inf}, "gamma2 must be positive"),
        ({"p": 0.5}, "p must be at least 0"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    with pytest.raises(TikhonError, match=message):
        example(1, **options)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match="Pass x and y"):
        example(1).solve()
    with pytest.raises(TikhonError, match="steps must be"):
        example(1).solve(start(1, 0.0), both(1, 0.0), steps=-1)
    with pytest.raises(TikhonError, match="x must be a floating-point tensor"):
        example(1).solve(0, both(1, 0.0))
    with pytest.raises(TikhonError, match=r"constraints must return \(m,\)"):
        LVHBA(lambda x, y: x.sum(), lambda x, y: y.sum(), lambda x, y: y.sum()).solve(start(1, 0.0), start(1, 0.0))
