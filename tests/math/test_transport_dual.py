"""The dual of quadratic transport: its gradient by autodiff, its top by linear algebra and by another optimizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tikhon.math.transport_dual import TransportDual
from tikhon.solvers.transport.sparse_ot import delta_omega


def dual(n=12, m=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(size, 2, generator=generator, dtype=torch.float64) for size in (n, m))
    a, b = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.2 for size in (n, m))
    return TransportDual(torch.cdist(x, y).square(), a / a.sum(), b / b.sum())


@pytest.mark.parametrize("k", [None, 1, 3])
def test_value_and_gradient_are_those_of_the_conjugates(k) -> None:
    problem, gamma = dual(), 0.3
    x = 0.5 * torch.randn(21, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    v = leaf[:12, None] + leaf[12:] - problem.cost.T
    assert k is None or int((v > 0).sum(0).max()) > k
    expected = problem.masses @ leaf - delta_omega(v, gamma, k).sum()
    value, gradient = problem.at(x, gamma, k)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])


@pytest.mark.parametrize("gamma", [1.0, 0.1])
def test_newtons_method_reaches_the_top_in_few_iterations(gamma) -> None:
    problem = dual(60, 40)
    x, done = problem.newton(torch.zeros(100, dtype=torch.float64), gamma, None, 1e-10, 200)
    value, gradient = problem.at(x, gamma, None)
    assert float(gradient.abs().sum()) <= 1e-10
    assert done < 60

    def descent(y: np.ndarray):
        found, slope = problem.at(torch.from_numpy(y), gamma, None)
        return -found, -slope.numpy()

    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 0.0, "gtol": 1e-9}
    other = minimize(descent, np.zeros(100), jac=True, method="L-BFGS-B", options=options)
    assert other.nit > 2 * done
    assert value == pytest.approx(-other.fun, rel=1e-9)


def test_where_kinks_end_newtons_method_the_first_order_goes_on() -> None:
    problem, gamma, k = dual(), 1.0, 2
    start, _ = problem.newton(torch.zeros(21, dtype=torch.float64), gamma, None, 1e-9, 200)
    stuck, done = problem.newton(start, gamma, k, 1e-9, 1000)
    assert done < 100
    higher, _ = problem.first_order(stuck, gamma, k, 1e-9, 1000)
    low, mid, high = (problem.at(x, gamma, k)[0] for x in (start, stuck, higher))
    assert low <= mid < high
    content, cheaper = problem.first_order(stuck, gamma, k, 1.0, 1000)
    assert cheaper <= 10
    assert problem.at(content, gamma, k)[0] <= high + 1e-9
