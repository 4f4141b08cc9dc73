"""Neural ordinary differential equations: a layer whose output is where a learned flow carries its input."""

from __future__ import annotations

import math

from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.math.runge_kutta import TABLEAUS, Solution, solve

__all__ = ["NeuralODE"]

card = Card(
    title="Neural Ordinary Differential Equations",
    authors="Chen, Rubanova, Bettencourt, Duvenaud",
    year=2018,
    arxiv="1806.07366",
    problems=("compression",),
    formula=r"y(T) = x + \int_0^T f_\theta(t, y(t))\,dt",
    claim="As many evaluations as the input and the tolerance ask for, with the parameters of one layer.",
    helps="Continuous time, invertible maps, few parameters; a trade of precision for speed after training.",
    hurts="Fields that grow stiff in training: evaluations rise without notice. Maps that no flow can make.",
    cost="Six evaluations of the field a step, of the whole batch until its slowest sample has arrived.",
    neutral="",
    kind="block",
)


class NeuralODE(nn.Module):
    """Carry every sample along dy/dt = field(t, y) from t = 0 to `end`, with steps of its own.

    Use it as a layer that keeps the shape of its input, where depth shall follow from the input and the tolerance. Not
    where a fixed number of layers does as well: they are faster. `SolverHeuristicReg` keeps the flow easy to solve.

        y(end) = x + int_0^end field(t, y(t)) dt

    field: a module that maps times (B,) and states (B, ...) to velocities (B, ...), samples not acting on each other;
    end: positive; rtol, atol: tolerances of a step, relative and absolute, positive and above the precision of the
    inputs' type (1e-6 in float32); solver: "tsit5" or "dopri5", both of order 5(4); max_steps: a sample that needs more
    ends the training with `Diverged`. The gradient is that of the steps as they were taken, which are kept in memory.

    `solve(x)` also returns lengths, error and stiffness estimates of the steps and the number of evaluations of every
    sample. Steps of its own mean that a sample's output does not depend on the batch, and equals what
    `scipy.integrate.solve_ivp` finds with RK45 ("dopri5").

    Cost: six evaluations of the field a step, of the whole batch until its slowest sample has arrived.
    Reference: Chen, Rubanova, Bettencourt, Duvenaud 2018, arXiv 1806.07366; steps by sample: Lienen, Guennemann 2022,
    arXiv 2210.12375.

    >>> class Field(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.inner = torch.nn.Linear(3, 3)
    ...     def forward(self, t, y):
    ...         return torch.tanh(self.inner(y))
    >>> layer = tikhon.NeuralODE(Field())
    >>> layer(torch.zeros(5, 3)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        field: nn.Module,
        end: float = 1.0,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        solver: str = "tsit5",
        max_steps: int = 1000,
    ) -> None:
        super().__init__()
        if not isinstance(field, nn.Module):
            raise TikhonError(f"field must be a module that maps (t, y) to dy/dt, not {field!r}.")
        for name, value in (("end", end), ("rtol", rtol), ("atol", atol)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
                raise TikhonError(f"{name} must be a positive, finite number, not {value!r}.")
        if solver not in TABLEAUS:
            raise TikhonError(f"solver is one of {', '.join(map(repr, TABLEAUS))}, not {solver!r}.")
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise TikhonError(f"max_steps must be a positive integer, not {max_steps!r}.")
        self.field, self.end, self.rtol, self.atol = field, float(end), float(rtol), float(atol)
        self.solver, self.max_steps = solver, max_steps
        self.estimates = nn.Identity()
        """What methods tap: the whole `Solution` of a pass goes through it."""

    def solve(self, x: Tensor) -> Solution:
        """The states at `end` with what the solver knew of every step. x: (B, ...), floating point."""
        if x.ndim < 2 or not x.is_floating_point():
            raise TikhonError(f"NeuralODE needs floating-point states (B, ...), not {x.dtype} of {tuple(x.shape)}.")
        return solve(self.field, x, 0.0, self.end, self.rtol, self.atol, TABLEAUS[self.solver], self.max_steps)

    def forward(self, x: Tensor) -> Tensor:
        solution: Solution = self.estimates(self.solve(x))
        return solution.state

    def extra_repr(self) -> str:
        return f"end={self.end:g}, rtol={self.rtol:g}, atol={self.atol:g}, solver={self.solver!r}"
