"""Hypergradients against closed forms, finite differences of the whole inner problem, and each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.tuning.hypergradient import conjugate_gradients, implicit_hypergradient, unrolled_hypergradient


def ridge() -> tuple[Any, Any, Any, Tensor]:
    """inner, outer, the optimum as a function of the strengths (one for each weight), and strengths."""
    generator = torch.Generator().manual_seed(0)
    x, held_out = torch.randn(2, 30, 6, generator=generator, dtype=torch.float64)
    y, wanted = torch.randn(2, 30, generator=generator, dtype=torch.float64)

    def inner(weights: Any, strengths: Any) -> Tensor:
        w = weights["w"]
        return 0.5 * (x @ w - y).square().mean() + 0.5 * (strengths["s"] * w.square()).sum()

    def outer(weights: Any, strengths: Any) -> Tensor:
        return 0.5 * (held_out @ weights["w"] - wanted).square().mean() + 0.01 * strengths["s"].square().sum()

    def optimum(s: Tensor) -> Tensor:
        return torch.linalg.solve(x.T @ x / len(x) + torch.diag(s), x.T @ y / len(x))

    return inner, outer, optimum, torch.linspace(0.1, 0.8, 6, dtype=torch.float64)


def by_differences(function: Any, s: Tensor, step: float = 1e-6) -> Tensor:
    moves = step * torch.eye(len(s), dtype=s.dtype)
    return torch.stack([(function(s + move) - function(s - move)) / (2.0 * step) for move in moves])


@pytest.mark.parametrize("solver", ["conjugate gradients", "neumann"])
def test_ridge_regression_by_the_implicit_function_theorem(solver: Any) -> None:
    inner, outer, optimum, s = ridge()
    found = implicit_hypergradient(inner, outer, {"w": optimum(s)}, {"s": s}, solver, steps=500, rate=0.3)
    expected = by_differences(lambda s: outer({"w": optimum(s)}, {"s": s}), s)
    torch.testing.assert_close(found["s"], expected, rtol=1e-6, atol=1e-9)


def test_damping_is_a_stiffer_inner_problem() -> None:
    inner, outer, optimum, s = ridge()
    w, stiff = {"w": optimum(s)}, 0.7
    found = implicit_hypergradient(inner, outer, w, {"s": s}, steps=50, damping=stiff)["s"]
    hessian = torch.func.jacrev(torch.func.grad(lambda one: inner({"w": one}, {"s": s})))(w["w"])
    slope, direct = torch.func.grad(outer, argnums=(0, 1))(w, {"s": s})
    solution = torch.linalg.solve(hessian + stiff * torch.eye(6, dtype=s.dtype), slope["w"])
    torch.testing.assert_close(found, direct["s"] - w["w"] * solution, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_unrolled_is_the_derivative_of_as_many_steps(steps: int) -> None:
    inner, outer, _, s = ridge()
    start = {"w": torch.ones(6, dtype=torch.float64)}

    def ended(s: Tensor) -> Tensor:
        w = start["w"].clone()
        for _ in range(steps):
            leaf = w.clone().requires_grad_()
            (slope,) = torch.autograd.grad(inner({"w": leaf}, {"s": s}), leaf)
            w = w - 0.2 * slope
        return w

    found, reached = unrolled_hypergradient(inner, outer, start, {"s": s}, steps, 0.2)
    torch.testing.assert_close(reached["w"], ended(s))
    expected = by_differences(lambda s: outer({"w": ended(s)}, {"s": s}), s)
    torch.testing.assert_close(found["s"], expected, rtol=1e-6, atol=1e-9)


def test_a_few_neumann_steps_are_as_many_steps_of_training_from_the_optimum() -> None:
    inner, outer, optimum, s = ridge()
    w = {"w": optimum(s)}
    implicit = implicit_hypergradient(inner, outer, w, {"s": s}, "neumann", steps=7, rate=0.2)
    unrolled, _ = unrolled_hypergradient(inner, outer, w, {"s": s}, 7, 0.2)
    torch.testing.assert_close(implicit["s"], unrolled["s"])


def test_both_agree_in_direction_on_a_small_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, held_out = torch.randn(2, 40, 4, dtype=torch.float64)
    y, wanted = x[:, :3].argmax(1), held_out[:, :3].argmax(1)

    def inner(weights: Any, strengths: Any) -> Tensor:
        decay = sum(strengths[name] * value.square().sum() for name, value in weights.items())
        return F.cross_entropy(torch.func.functional_call(network, weights, (x,)), y) + 0.5 * decay

    def outer(weights: Any, strengths: Any) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(network, weights, (held_out,)), wanted)

    start = {name: value.detach() for name, value in network.named_parameters()}
    strengths = {name: torch.tensor(0.05, dtype=torch.float64) for name in start}
    _, optimum = unrolled_hypergradient(inner, outer, start, strengths, 600, 1.0)
    slope = torch.func.grad(inner)(optimum, strengths)
    assert max(float(one.abs().max()) for one in slope.values()) < 1e-3
    implicit = implicit_hypergradient(inner, outer, optimum, strengths, steps=100)
    unrolled, _ = unrolled_hypergradient(inner, outer, optimum, strengths, 200, 1.0)
    one, other = (torch.stack(list(found.values())) for found in (implicit, unrolled))
    assert float(F.cosine_similarity(one, other, dim=0)) > 0.999


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_unknowns() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    matrix, b = root @ root.T + torch.eye(5, dtype=torch.float64), torch.randn(5, generator=generator).double()

    def product(x: Any) -> Any:
        whole = matrix @ torch.cat([x["a"], x["b"]])
        return {"a": whole[:2], "b": whole[2:]}

    for steps in (5, 50):  # and further ones do no harm
        x = conjugate_gradients(product, {"a": b[:2], "b": b[2:]}, steps)
        torch.testing.assert_close(torch.cat([x["a"], x["b"]]), torch.linalg.solve(matrix, b))


def test_wrong_settings_are_refused() -> None:
    inner, outer, _, s = ridge()
    w = {"w": torch.ones(6, dtype=torch.float64)}
    for steps, rate in ((0, 0.1), (1, 0.0), (1, float("nan"))):
        with pytest.raises(TikhonError, match="at least one step and a positive rate"):
            unrolled_hypergradient(inner, outer, w, {"s": s}, steps, rate)
    with pytest.raises(TikhonError, match="solver is"):
        implicit_hypergradient(inner, outer, w, {"s": s}, "newton")  # type: ignore[arg-type]
    for wrong in ({"steps": 0}, {"rate": -1.0}, {"damping": -0.1}):
        with pytest.raises(TikhonError, match="linear system"):
            implicit_hypergradient(inner, outer, w, {"s": s}, **wrong)  # type: ignore[arg-type]
