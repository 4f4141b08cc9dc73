"""Dynamical stability: whether gradient descent, or SGD, would stay at the minimum that it has found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.core.parameters import NORMS
from tikhon.core.passes import evaluating
from tikhon.measures.sharpness import sharpness

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sgd_stability", "Stability", "path_norm"]

card = Card(
    title="The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent",
    authors="Wu, Su",
    year=2023,
    arxiv="2305.17490",
    problems=("overfitting", "stability"),
    formula=r"\text{GD: } \lambda_{\max}(H)\le 2/\eta,\quad \text{SGD: } \mathrm{tr}(H)\le 2/\eta",
    claim="A minimum at which SGD is stable has a trace of at most 2/eta, which bounds norms of the weights and so the "
    "test error, the more the higher the rate; the condition of full-batch gradient descent is too weak for that.",
    helps="Networks that fit their training set with squared error: why a rate generalises, and how far from its limit "
    "it is.",
    hurts="Cross-entropy, whose Hessian vanishes at a perfect fit; momentum and adaptive rates, which have limits of "
    "their own.",
    cost="Some hundred products with the Hessian.",
    neutral="",
    kind="measure",
)


@dataclass(frozen=True)
class Stability:
    """Three conditions of stability as shares of their limits: above 1 the minimum repels the optimizer.

    largest, trace, frobenius: of the Hessian, estimated; trace_error: standard error; learning_rate, batch_size.
    """

    largest: float
    trace: float
    trace_error: float
    frobenius: float
    learning_rate: float
    batch_size: int

    @property
    def gd(self) -> float:
        """eta lambda_max / 2: necessary for full-batch gradient descent, and for SGD as well."""
        return 0.5 * self.learning_rate * self.largest

    @property
    def sgd(self) -> float:
        """(eta / 2) (tr H / B + (1 - 1/B) ||H||_F^2 / tr H): necessary for SGD in the mean square.

        With B = 1 it is eta tr(H) / 2, as in the paper. Both follow from how a deviation that is equally large in all
        directions grows in one step, for samples whose own Hessians have rank one and batches drawn with replacement.
        """
        one = 1.0 / self.batch_size
        spread = self.frobenius**2 / self.trace if self.trace else 0.0
        return 0.5 * self.learning_rate * (one * self.trace + (1.0 - one) * spread)

    @property
    def loss(self) -> float:
        """eta ||H||_F / sqrt(B): for SGD whose loss stays bounded, where its noise along H is as strong as the loss is
        high (Wu, Wang, Su 2022, arXiv 2207.02628)."""
        return self.learning_rate * self.frobenius / math.sqrt(self.batch_size)

    def plot(self, axes: Axes | None = None) -> Axes:
        """A bar for each condition, as a share of its limit, with the rate at which it would reach it."""
        axes = given_or_new(axes)
        shares = {"GD: largest eigenvalue": self.gd, "SGD: trace": self.sgd, "SGD: Frobenius norm": self.loss}
        bars = axes.barh(
            list(shares), list(shares.values()), color=["C3" if one > 1 else "C0" for one in shares.values()]
        )
        rates = [f"limit at {self.learning_rate / one:.3g}" if one > 0 else "" for one in shares.values()]
        axes.bar_label(bars, rates, padding=3)
        axes.axvline(1.0, color="black", linestyle=":")
        axes.margins(x=0.3)
        axes.set_xlabel(f"share of the limit, learning rate {self.learning_rate:g}, batches of {self.batch_size}")
        return axes


def sgd_stability(
    model: nn.Module,
    base: Any,
    batches: Iterable[tuple[Any, Tensor]],
    learning_rate: float,
    batch_size: int = 1,
    steps: int = 50,
    probes: int = 100,
    seed: int = 0,
) -> Stability:
    """How near a minimum is to the limits at which gradient descent and SGD would leave it.

    model, base, batches: as for `sharpness`, at a minimum that fits the data; learning_rate: positive, of plain SGD on
    the mean loss; batch_size: of that SGD, at least 1, whatever the batches here; steps: of Lanczos at the most;
    probes: of Hutchinson, at least 2; seed: of both. The conditions are necessary, and linear: what a large step does
    far from the minimum they do not see. Raises `TikhonError` where there is nothing to measure.
    Source: Wu, Su 2023, arXiv 2305.17490.

    >>> import torch, tikhon
    >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> found = tikhon.sgd_stability(model, torch.nn.functional.mse_loss, data, learning_rate=0.4)
    >>> round(found.gd, 3), round(found.sgd, 3)
    (0.8, 1.0)
    """
    if not learning_rate > 0.0:
        raise TikhonError(f"learning_rate must be positive, not {learning_rate}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise TikhonError(f"batch_size must be a positive integer, not {batch_size!r}.")
    found = sharpness(model, base, batches, steps=steps, probes=probes, seed=seed)
    return Stability(found.largest, found.trace, found.trace_error, found.frobenius, float(learning_rate), batch_size)


def path_norm(model: nn.Module, inputs: Tensor) -> Tensor:
    """The sum over all paths from an input or a bias to an output of the product of the absolute weights on it.

    model: of layers that are linear in their parameters, ReLUs, averages and maxima over positions (a maximum counts
    one path), sums of branches; inputs: (B, ...), for their shape. Returns a scalar. Raises `TikhonError` for
    normalisation layers, which have no paths. Source: Neyshabur, Tomioka, Srebro 2015, arXiv 1503.00036, with p = 1.

    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    >>> for layer, weight in zip(model[::2], ([[1.0, -2.0]], [[-3.0]])):
    ...     _ = layer.weight.data.copy_(torch.tensor(weight))
    >>> path_norm(model, torch.zeros(1, 2))
    tensor(9.)
    """
    for name, module in model.named_modules():
        if isinstance(module, NORMS):
            raise TikhonError(f"A path norm has no meaning for {name} ({type(module).__name__}): fold it first.")
    with evaluating(model):
        absolute = {name: one.detach().abs() for name, one in model.named_parameters()}
        output: Tensor = functional_call(model, absolute, (torch.ones_like(inputs[:1]),))
        return output.sum()
