"""Embedded Runge-Kutta methods of order 5(4) with a step size of its own for every sample of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tikhon.core.errors import Diverged

Field = Callable[[Tensor, Tensor], Tensor]
"""dy/dt as a function of times (B,) and states (B, ...)."""


class Tableau(NamedTuple):
    """Coefficients of seven stages, the last of which is the first of the next step."""

    times: tuple[float, ...]
    """c: where in the step the stages lie."""
    stages: tuple[tuple[float, ...], ...]
    """a: the rows of stages 2 to 7; the last row gives the new state."""
    error: tuple[float, ...]
    """b minus the weights of order 4: what the two solutions differ by."""


TABLEAUS = {
    "tsit5": Tableau(
        times=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
        stages=(
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
            (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
        ),
        error=(
            -0.00178001105222577714,
            -0.0008164344596567469,
            0.007880878010261995,
            -0.1447110071732629,
            0.5823571654525552,
            -0.45808210592918697,
            0.015151515151515152,
        ),
    ),
    "dopri5": Tableau(
        times=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        stages=(
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
}
"""Tsitouras 2011 and Dormand, Prince 1980."""

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0  # bounds of how a step changes, as is usual (Hairer, Norsett, Wanner 1993)


class Solution(NamedTuple):
    """States at the end, and what the solver knew of every attempted step (J of them, for the slowest sample)."""

    state: Tensor
    """(B, ...)."""
    sizes: Tensor
    """(J, B): lengths of the steps, 0 where a step was rejected or the sample had arrived. No gradient."""
    errors: Tensor
    """(J, B): estimated local errors as a share of the tolerance, at most 1; 0 where the size is."""
    stiffness: Tensor
    """(J, B): estimates of the largest eigenvalue of the field's Jacobian, in size; 0 where the size is."""
    evaluations: Tensor
    """(B,): how often the field was needed, as whole numbers."""


def rms(values: Tensor) -> Tensor:
    """Root of the mean square over all dimensions but the first, (B, ...) -> (B,); its gradient at 0 is 0.

    >>> rms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([3.5355, 0.0000])
    """
    rows = values.flatten(1)
    length: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return length / math.sqrt(rows.shape[1])


def _weighted(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        total = torch.add(total, slope, alpha=weight)  # no tensor of weights: on an accelerator it would be a copy
    return total


def attempted_step(
    field: Field, t: Tensor, y: Tensor, h: Tensor, slope: Tensor, tableau: Tableau
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of every sample: six evaluations of the field.

    t, h: (B,), times and lengths; y, slope: (B, ...), states and the field there. Returns the new states, the field at
    them, what the solutions of orders 5 and 4 differ by (all (B, ...)), and (B,) ||k7 - k6|| / ||y7 - y6||: both stages
    lie at t + h, so the quotient estimates the Jacobian's largest eigenvalue (Hairer, Wanner 1996), 0 where they are
    equal.
    """
    wide = h.reshape(-1, *[1] * (y.ndim - 1))
    slopes, before, after = [slope], y, y
    for time, row in zip(tableau.times[1:], tableau.stages, strict=True):
        before, after = after, torch.addcmul(y, wide, _weighted(row, slopes))
        slopes.append(field(torch.add(t, h, alpha=time), after))
    difference = wide * _weighted(tableau.error, slopes)
    distance = rms(after - before)
    apart = distance > 0.0
    stiffness = torch.where(apart, rms(slopes[6] - slopes[5]) / torch.where(apart, distance, 1.0), 0.0)
    return after, slopes[6], difference, stiffness


@torch.no_grad()
def first_size(field: Field, t: Tensor, y: Tensor, slope: Tensor, span: Tensor, rtol: float, atol: float) -> Tensor:
    """A length for the first step, (B,), by one evaluation of the field (Hairer, Norsett, Wanner 1993, II.4).

    t: (B,); y, slope: (B, ...); span: (B,), how far it is to the end; rtol, atol: positive.
    """
    scale = atol + rtol * y.abs()
    size, speed = rms(y / scale), rms(slope / scale)
    guess = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed.clamp_min(1e-30)).minimum(span)
    wide = guess.reshape(-1, *[1] * (y.ndim - 1))
    bend = rms((field(t + guess, y + wide * slope) - slope) / scale) / guess
    most = torch.maximum(speed, bend)
    fitting = torch.where(most <= 1e-15, (1e-3 * guess).clamp_min(1e-6), (0.01 / most.clamp_min(1e-30)) ** 0.2)
    return torch.minimum(torch.minimum(100.0 * guess, fitting), span)


def solve(
    field: Field,
    y: Tensor,
    begin: float,
    end: float,
    rtol: float,
    atol: float,
    tableau: Tableau,
    max_steps: int = 1000,
) -> Solution:
    """Solve dy/dt = field(t, y) from `begin` to `end`, every sample with steps of its own.

    A step is accepted where rms(difference / (atol + rtol max(|y|, |y'|))) < 1, and the next one is as much longer or
    shorter as that number's fifth root says. The whole batch is evaluated as long as one sample is on its way; a sample
    that has arrived takes steps of length 0. Gradients are those of the steps as they were taken, lengths held fixed
    (the discrete adjoint): for the state and for the estimates.

    y: (B, ...); begin < end; rtol, atol: positive, not below the precision of y's type; max_steps: attempts, at least
    1. A sample whose state or field is not finite at the start stays where it is, with NaN. Raises `Diverged` where
    max_steps do not suffice. Looks at values once a step, so that it compiles only in parts.

    >>> solve(lambda t, y: -y, torch.ones(1, 1), 0.0, 1.0, 1e-6, 1e-6, TABLEAUS["tsit5"]).state
    tensor([[0.3679]])
    """
    shape = [-1, *[1] * (y.ndim - 1)]
    last = y.new_full((len(y),), end)
    t = torch.full_like(last, begin)
    slope = field(t, y)
    with torch.no_grad():
        finite = (slope.flatten(1).isfinite() & y.flatten(1).isfinite()).all(1)
        h = torch.where(finite, first_size(field, t, y, slope, last - t, rtol, atol), 0.0)
        t = torch.where(finite, t, last)
    y = torch.where(finite.reshape(shape), y, torch.nan)
    evaluations = torch.full_like(t, 2, dtype=torch.int64)
    taken: list[Tensor] = []
    errors: list[Tensor] = []
    stiffness: list[Tensor] = []
    accepted = finite
    while bool((t < last).any()):
        if len(taken) == max_steps:
            raise Diverged(
                f"{int((t < last).sum())} of {len(t)} samples had not arrived at the end of the differential equation "
                f"after {max_steps} steps. Loosen rtol and atol, regularise the field, or allow more with max_steps=."
            )
        with torch.no_grad():
            evaluations += 6 * (t < last)
            arrives = h >= last - t
            h = torch.where(arrives, last - t, h)
        new, new_slope, difference, eigenvalue = attempted_step(field, t, y, h, slope, tableau)
        error = rms(difference / (atol + rtol * torch.maximum(y.abs(), new.abs())))
        with torch.no_grad():
            moving = h > 0.0
            after_rejection = ~accepted
            accepted = error < 1.0
            moved = accepted & moving
            factor = (SAFETY * error ** (-0.2)).nan_to_num(SHRINK).clamp(SHRINK, GROW)
            factor = torch.where(after_rejection | ~accepted, factor.clamp_max(1.0), factor)
            t = torch.where(moved, torch.where(arrives, last, t + h), t)
            size = torch.where(moved, h, 0.0)
            h = h * factor
        taken.append(size)
        errors.append(torch.where(moved, error, 0.0))
        stiffness.append(torch.where(moved, eigenvalue, 0.0))
        y = torch.where(moved.reshape(shape), new, y)
        slope = torch.where(moved.reshape(shape), new_slope, slope)
    if not taken:
        nothing = y.new_zeros(0, len(y))
        return Solution(y, nothing, nothing, nothing, evaluations)
    return Solution(y, torch.stack(taken), torch.stack(errors), torch.stack(stiffness), evaluations)
