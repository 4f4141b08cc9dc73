"""StableMax: probabilities that grow with the logits linearly, so that certainty does not stop learning."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import ClassLoss, Loss
from tikhon.core.method import Method
from tikhon.math.precision import at_least_float32


def log_s(logits: Tensor) -> Tensor:
    """The logarithm of s: log(1 + x) for x >= 0 and -log(1 - x) below. Odd, with slope 1 / (1 + |x|) everywhere.

    logits: (...); returns (...), in float32 at least.
    """
    logits = at_least_float32(logits)
    positive = logits >= 0
    # Both branches below are finite for every finite logit, so that neither sends a NaN into the other's gradient;
    # and unlike abs, this has slope 1 at 0, where the logits of a fresh network may well lie.
    size = torch.where(positive, logits, -logits)
    return torch.where(positive, torch.log1p(size), -torch.log1p(size))


def s(logits: Tensor) -> Tensor:
    """x + 1 for x >= 0 and 1 / (1 - x) below: positive and increasing, in place of exp (Prieto et al. 2025,
    arXiv 2501.04697).

    logits: (...); returns (...), in float32 at least.

    >>> s(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.5000, 1.0000, 2.0000])
    """
    logits = at_least_float32(logits)
    positive = logits >= 0
    size = torch.where(positive, logits, -logits)
    return torch.where(positive, 1.0 + size, 1.0 / (1.0 + size))


def log_stablemax(logits: Tensor, dim: int = 1) -> Tensor:
    """log(s(x_k) / sum_j s(x_j)): the log-softmax of log s(x).

    logits: (B, K, ...), classes along `dim`; returns the same shape, in float32 at least, log-probabilities.

    >>> log_stablemax(torch.tensor([[1.0, 1.0]])).exp()
    tensor([[0.5000, 0.5000]])
    """
    return F.log_softmax(log_s(logits), dim=dim)


class StableMax(Method):
    """Replace the exponential of the softmax by a function that grows linearly.

    Use it where training runs long after the training set is fitted, without weight decay and in low precision: there
    the softmax's gradients round to zero before the network generalises. Not where probabilities must be sharp or
    calibrated: these are polynomial in the logits. Probabilities at deployment come from `log_stablemax`, not softmax.

        p_k = s(x_k) / sum_j s(x_j),   s(x) = x + 1 for x >= 0, 1 / (1 - x) below

    It provides the loss function: class weights, ignored labels and soft or mixed targets work as before. Computed in
    the precision of the logits, in float32 at least; the official code computes in float64, as `model.double()` does.

    Cost: two elementwise passes over the logits. Reference: Prieto, Barsbey, Mediano, Birdal 2025, arXiv 2501.04697.

    >>> recipe = tikhon.Recipe(tikhon.StableMax())
    """

    card = Card(
        title="Grokking at the Edge of Numerical Stability",
        authors="Prieto, Barsbey, Mediano, Birdal",
        year=2025,
        arxiv="2501.04697",
        problems=("overfitting", "stability"),
        formula=r"p_k = \frac{s(x_k)}{\sum_j s(x_j)},\quad s(x) = \begin{cases}x+1 & x\ge 0\\ 1/(1-x) & x<0\end{cases}",
        claim="Prevents softmax collapse and makes grokking possible without regularisation.",
        helps="Long training past a perfect fit, without weight decay.",
        hurts="Short training, and wherever sharp or calibrated probabilities are needed.",
        cost="Two elementwise passes over the logits.",
        neutral="",
    )
    needs = frozenset({"classes"})
    exempt = {"neutral": "it is another loss function; without it training is plain"}

    def loss_function(self, loss: Loss) -> Loss:
        if not isinstance(loss, ClassLoss):
            raise TikhonError(
                f"{self.key} replaces the softmax of cross-entropy, and the base loss is {type(loss).__name__}: "
                "use base=torch.nn.functional.cross_entropy or tk.ClassLoss(...)."
            )
        if loss.log_probabilities is not None:
            raise TikhonError(f"{self.key} would overwrite the base loss's own log_probabilities; leave one out.")
        return replace(loss, log_probabilities=log_stablemax)
