"""Neural differential equations beside torchdiffeq: a perceptron as the field, 128 states of 64 numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

import tikhon as tk
from benchmarks.harness import Pair, case

TOLERANCE = 1e-5


class Field(nn.Module):
    """dy/dt = f(y), about as stiff as a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(y)))


def flow(solver: str, gradient: bool, adjoint: bool = False) -> Pair:
    field = Field()
    with torch.no_grad():
        field.inner.weight.mul_(4.0)
        field.outer.weight.mul_(4.0)
    state, times = torch.randn(128, 64), torch.tensor([0.0, 1.0])
    layer = tk.NeuralODE(field, rtol=TOLERANCE, atol=TOLERANCE, solver=solver)
    integrate = odeint_adjoint if adjoint else odeint

    def with_gradient(end: Tensor) -> tuple[Tensor, ...]:
        if not gradient:
            return (end,)
        return end, *torch.autograd.grad(end.square().mean(), list(field.parameters()))

    def ours() -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(gradient):
            return with_gradient(layer(state))

    def theirs() -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(gradient):
            return with_gradient(integrate(field, state, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[-1])

    def same() -> bool:
        """Of the peer's accuracy: no more than twice as far from a solution to 1e-11 in float64."""
        exact = Field().double()
        exact.load_state_dict(field.state_dict())
        end = odeint(exact, state.double(), times.double(), rtol=1e-11, atol=1e-11)[-1]
        true = [end] if not gradient else [end, *torch.autograd.grad(end.square().mean(), list(exact.parameters()))]
        errors = [
            [float((one - right).abs().max() / right.abs().max()) for one, right in zip(found, true, strict=True)]
            for found in (ours(), theirs())
        ]
        return all(mine <= 2.0 * other for mine, other in zip(*errors, strict=True))

    return Pair(ours, theirs, same=same)


@case("neural ODE, dopri5 to 1e-5, forward", peer="torchdiffeq")
def forward() -> Pair:
    return flow("dopri5", gradient=False)


@case("neural ODE, dopri5 to 1e-5, forward and backward", peer="torchdiffeq", note="odeint")
def backward() -> Pair:
    return flow("dopri5", gradient=True)


@case("neural ODE, dopri5 to 1e-5, forward and adjoint", peer="torchdiffeq", note="odeint_adjoint")
def adjoint() -> Pair:
    return flow("dopri5", gradient=True, adjoint=True)


@case("neural ODE to 1e-5, default solver, forward and backward", peer="torchdiffeq", note="ours tsit5, theirs dopri5")
def default_solver() -> Pair:
    return flow("tsit5", gradient=True)
