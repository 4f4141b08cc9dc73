"""Hypergradients of small problems, exactly: through the steps of training, or by the implicit function theorem.

References by which cheaper ones are judged, and a tool where an inner problem is solved to its end. What a network
learns in one run is `tk.Learned`.

Inner problem: weights w minimise O(w, s). Outer: strengths s are to lower V(w(s), s). Both are functions of dicts of
tensors; a network becomes one by `torch.func.functional_call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError

Tensors = Mapping[str, Tensor]
Problem = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]
"""(weights, strengths) -> a scalar."""


def unrolled_hypergradient(
    inner: Problem, outer: Problem, weights: Tensors, strengths: Tensors, steps: int, rate: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """dV(w_K(s), s)/ds through w_{k+1} = w_k - rate grad_w O(w_k, s), exact by reverse mode.

    weights: w_0; strengths: tensors of any shape; steps: K, at least 1; rate: positive. Returns the derivatives, by
    name and in the shapes of the strengths, and w_K. Memory grows with K: every step's graph is kept (Maclaurin,
    Duvenaud, Adams 2015, arXiv 1502.03492, without their reversal). Raises `TikhonError` for a K or rate out of range.

    >>> inner = lambda w, s: ((w["w"] - 1.0).square() + s["s"] * w["w"].square()).sum()
    >>> outer = lambda w, s: w["w"].square().sum()
    >>> found, _ = unrolled_hypergradient(inner, outer, {"w": torch.ones(1)}, {"s": torch.tensor(0.0)}, 1, 0.1)
    >>> found["s"]
    tensor(-0.4000)
    """
    if steps < 1 or not rate > 0.0:
        raise TikhonError(f"Unrolling needs at least one step and a positive rate, not {steps} and {rate}.")

    def reached(strengths: dict[str, Tensor]) -> dict[str, Tensor]:
        now = dict(weights)
        for _ in range(steps):
            gradients = torch.func.grad(inner)(now, strengths)
            now = {name: one - rate * gradients[name] for name, one in now.items()}
        return now

    def after(strengths: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        ended = reached(strengths)
        return outer(ended, strengths), ended

    found, ended = torch.func.grad(after, has_aux=True)(dict(strengths))
    return found, ended


def implicit_hypergradient(
    inner: Problem,
    outer: Problem,
    weights: Tensors,
    strengths: Tensors,
    solver: Literal["conjugate gradients", "neumann"] = "conjugate gradients",
    steps: int = 50,
    rate: float = 0.1,
    damping: float = 0.0,
) -> dict[str, Tensor]:
    """dV/ds = V_s - O_sw (O_ww + damping I)^-1 V_w, where O_w(w, s) = 0 (Lorraine, Vicol, Duvenaud 2020, arXiv
    1911.02590, eq. 2).

    weights: those that minimise O for these strengths: elsewhere the result is off by as much as O_w is. solver: of the
    linear system; conjugate gradients need a positive definite Hessian (Pedregosa 2016, arXiv 1602.02355), the Neumann
    series rate sum_{j < steps} (1 - rate O_ww)^j V_w one below 2 / rate, and stops short on purpose where few steps
    regularise (Lorraine et al., alg. 3). Each step takes one product of the Hessian with a vector. damping: at least
    0. Returns the derivatives, by name and in the shapes of the strengths. Raises `TikhonError` for settings out of
    range.

    >>> inner = lambda w, s: ((w["w"] - 1.0).square() + s["s"] * w["w"].square()).sum()
    >>> outer = lambda w, s: w["w"].square().sum()  # at s = 1 the optimum is 1 / (1 + s)
    >>> implicit_hypergradient(inner, outer, {"w": torch.tensor([0.5])}, {"s": torch.tensor(1.0)})["s"]
    tensor(-0.2500)
    """
    if solver not in ("conjugate gradients", "neumann"):
        raise TikhonError(f"solver is 'conjugate gradients' or 'neumann', not {solver!r}.")
    if steps < 1 or not rate > 0.0 or not damping >= 0.0:
        raise TikhonError(
            "The linear system needs at least one step, a positive rate and a damping that is not negative, not "
            f"{steps}, {rate} and {damping}."
        )
    w, s = dict(weights), dict(strengths)
    slope, direct = torch.func.grad(outer, argnums=(0, 1))(w, s)
    pulled: Callable[..., Any] = torch.func.vjp(torch.func.grad(inner), w, s)[1]

    def hessian(vector: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: one + damping * vector[name] for name, one in pulled(vector)[0].items()}

    solution = (
        conjugate_gradients(hessian, slope, steps)
        if solver == "conjugate gradients"
        else _neumann(hessian, slope, steps, rate)
    )
    mixed = pulled(solution)[1]
    return {name: one - mixed[name] for name, one in direct.items()}


Product = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def conjugate_gradients(product: Product, right: Tensors, steps: int) -> dict[str, Tensor]:
    """x with A x = b after so many steps of conjugate gradients from x = 0 (Hestenes and Stiefel 1952).

    product: x -> A x, A symmetric and positive definite; right: b. What has converged stays as it is.

    >>> x = conjugate_gradients(lambda x: {"x": 2.0 * x["x"]}, {"x": torch.tensor([1.0, 3.0])}, 5)
    >>> x["x"]
    tensor([0.5000, 1.5000])
    """
    x = {name: torch.zeros_like(one) for name, one in right.items()}
    residual, direction = dict(right), dict(right)
    before = _dot(residual, residual)
    least = before * torch.finfo(before.dtype).eps ** 2
    for _ in range(steps):
        image = product(direction)
        length = torch.where(before > least, before / _dot(direction, image), 0.0)
        x = _plus(x, length, direction)
        residual = _plus(residual, -length, image)
        after = _dot(residual, residual)
        direction = _plus(residual, torch.where(before > least, after / before, 0.0), direction)
        before = after
    return x


def _neumann(product: Product, right: Tensors, steps: int, rate: float) -> dict[str, Tensor]:
    term = dict(right)
    total = dict(right)
    for _ in range(steps - 1):
        term = _plus(term, -rate, product(term))
        total = _plus(total, 1.0, term)
    return {name: rate * one for name, one in total.items()}


def _dot(one: Tensors, other: Tensors) -> Tensor:
    return torch.stack([(one[name] * other[name]).sum() for name in one]).sum()


def _plus(one: Tensors, factor: float | Tensor, other: Tensors) -> dict[str, Tensor]:
    return {name: value + factor * other[name] for name, value in one.items()}
