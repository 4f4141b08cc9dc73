"""Refined schedules: from the gradient norms of one run, the learning rate of the next."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.optim import Optimizer

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError

__all__ = ["refined_schedule", "GradientNorms", "median_smoothed", "closed_form", "numeric_schedule"]

card = Card(
    title="When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    authors="Defazio, Cutkosky, Mehta, Mishchenko",
    year=2023,
    arxiv="2310.07831",
    problems=("speed", "stability"),
    formula=r"\eta_t = w_t\sum_{p>t} w_p,\quad w_t = G_t^{-2}",
    claim="Linear decay matches or beats other schedules; refined from gradient norms it gains further, with warm-up "
    "and annealing that nobody had to choose.",
    helps="A training that is run again: same model, other data, seed or length.",
    hurts="Gradient norms of a run that diverged or was much shorter.",
    cost="A norm of the gradient a step in the first run; nothing in the second.",
    neutral="",
    kind="measure",
)


def median_smoothed(values: Tensor, width: int) -> Tensor:
    """The median of every window of `width` values, the ends reflected.

    values: (T,), T above width / 2; width: odd and positive. Returns (T,).

    >>> median_smoothed(torch.tensor([1.0, 9.0, 2.0, 3.0]), width=3)
    tensor([9., 2., 3., 2.])
    """
    half = width // 2
    padded = torch.cat([values[1 : half + 1].flip(0), values, values[len(values) - half - 1 : -1].flip(0)])
    return padded.unfold(0, width, 1).median(dim=1).values


def closed_form(weights: Tensor) -> Tensor:
    """eta_t = w_t sum_{p > t} w_p of positive weights (T,), T at least 2, divided by its largest value.

    Returns (T,) in [0, 1]; the last is 0. Equal weights give linear decay.

    >>> closed_form(torch.ones(3, dtype=torch.float64))
    tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    later = weights.flip(0).cumsum(0).flip(0) - weights
    rates = weights * later.clamp_min(0.0)
    return rates / rates.max()


def refined_schedule(norms: Tensor, kind: Literal["sgd", "adam"] = "sgd", smoothing: float = 0.1) -> Tensor:
    """Learning rates for the next run, as shares of the largest, from the gradient norms of the last one.

    norms: (T,), positive: for SGD l2 norms, for Adam l1 norms of the gradients, one a step; kind: the weights are
    norms^-2 for "sgd" and norms^-1 for "adam"; smoothing: width of the median filter as a share of T, 0.1 in the paper,
    0 for none. Returns (T,) in [0, 1], float64, to multiply the base learning rate with:
    `torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(rates[min(step, len(rates) - 1)]))`.
    Raises `TikhonError` for norms that are not positive and finite. Source: Defazio et al. 2023, arXiv 2310.07831;
    the official code divides by the last weight instead, `closed_form` by the largest rate: the shape is
    the same.

    >>> import torch, tikhon
    >>> tikhon.refined_schedule(torch.ones(5))
    tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
    """
    if norms.ndim != 1 or len(norms) < 2:
        raise TikhonError(f"norms must be (T,) with T at least 2, not {tuple(norms.shape)}.")
    if kind not in ("sgd", "adam"):
        raise TikhonError(f"kind is 'sgd' or 'adam', not {kind!r}.")
    if not 0.0 <= smoothing < 1.0:
        raise TikhonError(f"smoothing is a share of the run in [0, 1), not {smoothing}.")
    norms = norms.detach().double().cpu()
    if not bool((norms.isfinite() & (norms > 0)).all()):
        raise TikhonError("norms must be positive and finite: leave out steps that were skipped or diverged.")
    width = round(smoothing * len(norms)) // 2 * 2 + 1
    smooth = median_smoothed(norms, width) if width > 1 else norms
    return closed_form(smooth ** (-2.0 if kind == "sgd" else -1.0))


def numeric_schedule(norms: Tensor, distance: float) -> Tensor:
    """Learning rates that minimise the bound on the last iterate's error directly, by L-BFGS-B.

        D^2 / (2 L) + (1 / 2 L) sum_t G_t^2 l_t^2 + (1/2) sum_k l_k / (S_k (S_k - l_k)) sum_{s >= k} G_s^2 l_s^2

    norms: G, (T,), positive; distance: D, positive, from the start to the solution; L = sum_t l_t and
    S_k = sum_{s >= k} l_s. Returns l, (T,), float64, at least 1e-8.
    """
    squares = norms.detach().double().cpu().numpy() ** 2

    def bound(rates: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        chosen = torch.from_numpy(rates.copy()).requires_grad_()
        g = torch.from_numpy(squares)
        energy = g * chosen.square()
        tails = chosen.flip(0).cumsum(0).flip(0)
        later = tails - chosen
        energies = energy.flip(0).cumsum(0).flip(0)
        first = (distance**2 + energy.sum()) / (2.0 * chosen.sum())
        value = first + 0.5 * (chosen[:-1] / (tails[:-1] * later[:-1]) * energies[:-1]).sum()
        value.backward()
        assert chosen.grad is not None
        return float(value.detach()), chosen.grad.numpy()

    start = np.full(len(squares), distance / np.sqrt(squares.sum()))
    found = minimize(bound, start, jac=True, method="L-BFGS-B", bounds=[(1e-8, None)] * len(squares))
    return torch.from_numpy(found.x)


class GradientNorms:
    """Records the norm of the gradient at every step of an optimizer, on its device, without waiting for it.

    optimizer: any of torch; order: 2 for SGD, 1 for Adam. `values()` gives the norms so far, (T,); `remove()` ends the
    recording. Steps of which no parameter has a gradient are not recorded.
    """

    def __init__(self, optimizer: Optimizer, order: Literal[1, 2] = 2) -> None:
        self.order = order
        self._norms: list[Tensor] = []
        self._handle = optimizer.register_step_pre_hook(self._record)

    def _record(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        found = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if found:
            each = torch._foreach_norm(found, self.order)
            self._norms.append(torch.linalg.vector_norm(torch.stack(list(each)), self.order))

    def values(self) -> Tensor:
        """The norms so far, (T,)."""
        return torch.stack(self._norms) if self._norms else torch.zeros(0)

    def remove(self) -> None:
        """Take the hook off the optimizer."""
        self._handle.remove()
