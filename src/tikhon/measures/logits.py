"""Logits: how they grow in training with the weights, until the softmax rounds to certainty and nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.core.parameters import effective_weights, select
from tikhon.math.precision import at_least_float32

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LogitHistory", "collapsed_share", "confidence", "logit_scale", "overconfidence"]

NUMBERS = ("scale", "collapsed", "confidence", "overconfidence", "weight_norm")


def logit_scale(logits: Tensor) -> Tensor:
    """The root mean square of centred logits, a scalar: what the softmax sees of their size.

    logits: (N, K). Adding a number to all logits of a sample changes nothing.

    >>> logit_scale(torch.tensor([[5.0, 1.0], [2.0, 2.0]]))
    tensor(1.4142)
    """
    logits = at_least_float32(logits)
    return (logits - logits.mean(1, keepdim=True)).square().mean().sqrt()


def collapsed_share(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of samples whose cross-entropy is exactly 0 in the precision of the logits: they teach nothing more.

    logits: (N, K); labels: (N,) int64. Returns a scalar in [0, 1]. In float32 this begins where the label's logit is 17
    above the others. Source: softmax collapse in Prieto et al. 2025, arXiv 2501.04697, definition 1.

    >>> collapsed_share(torch.tensor([[20.0, 0.0], [10.0, 0.0]]), torch.tensor([0, 0]))
    tensor(0.5000)
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses == 0).to(at_least_float32(logits).dtype).mean()


def confidence(logits: Tensor) -> Tensor:
    """The mean of the largest probability, a scalar in [1 / K, 1], of logits (N, K)."""
    return at_least_float32(logits).softmax(1).amax(1).mean()


def overconfidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean confidence less accuracy, a scalar in (-1, 1): above 0 where the model is surer than it is right.

    logits: (N, K); labels: (N,) int64.

    >>> overconfidence(torch.tensor([[20.0, 0.0], [20.0, 0.0]]), torch.tensor([0, 1]))
    tensor(0.5000)
    """
    sure = confidence(logits)
    return sure - (logits.argmax(1) == labels).to(sure.dtype).mean()


class LogitHistory:
    """Records at every call how large weights and logits are, how sure the model is, and how much has collapsed.

    Numbers stay on the model's device and nothing waits for them, so that it may be called at every step. In a loop:
    `history.update(model, output.detach(), labels)` after the optimizer's step, with the output of the batch in hand.

    Cost: a norm of every weight and five reductions of the output; a few numbers a call are kept.

    >>> history = LogitHistory()
    >>> model = nn.Linear(2, 3)
    >>> for _ in range(2):
    ...     history.update(model, model(torch.ones(4, 2)), torch.zeros(4, dtype=torch.int64))
    >>> sorted(history.values()), history.weight_norms()["weight"].shape
    (['collapsed', 'confidence', 'overconfidence', 'scale', 'weight_norm'], torch.Size([2]))
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def update(self, model: nn.Module, output: Tensor, labels: Tensor) -> None:
        """Record. model: whose weights of two or more axes are measured; output: logits (N, K); labels: (N,) int64."""
        if output.ndim != 2 or labels.shape != output.shape[:1]:
            raise TikhonError(
                f"LogitHistory takes logits (N, K) and labels (N,), not {tuple(output.shape)}, {tuple(labels.shape)}."
            )
        weights = effective_weights(select(model))
        if self._names and list(weights) != self._names:
            raise TikhonError("This LogitHistory has begun with another model; make one for each.")
        self._names = list(weights)
        norms = torch.stack([at_least_float32(norm) for norm in torch._foreach_norm(list(weights.values()))])
        numbers = (
            logit_scale(output),
            collapsed_share(output, labels),
            confidence(output),
            overconfidence(output, labels),
            torch.linalg.vector_norm(norms),
        )
        self._rows.append(torch.cat([torch.stack([one.to(norms) for one in numbers]), norms]))

    def _table(self) -> Tensor:
        return torch.stack(self._rows).cpu() if self._rows else torch.zeros(0, len(NUMBERS) + len(self._names))

    def values(self) -> dict[str, Tensor]:
        """scale, collapsed, confidence, overconfidence, and weight_norm of all weights together: each (calls,)."""
        return dict(zip(NUMBERS, self._table().T[: len(NUMBERS)], strict=True))

    def weight_norms(self) -> dict[str, Tensor]:
        """The Frobenius norm of every weight by name, each (calls,)."""
        return dict(zip(self._names, self._table().T[len(NUMBERS) :], strict=True))

    def plot(self, axes: Axes | None = None) -> Axes:
        """The scale of the logits and the norm of the weights on a logarithmic axis, the collapsed share on another."""
        axes = given_or_new(axes)
        values = self.values()
        axes.semilogy(values["scale"].numpy(), label="scale of the logits")
        axes.semilogy(values["weight_norm"].numpy(), label="norm of the weights")
        axes.set_xlabel("call")
        right = axes.twinx()
        right.plot(values["collapsed"].numpy(), color="C3", linestyle=":", label="collapsed share")
        right.set_ylim(-0.02, 1.02)
        right.set_ylabel("share")
        lines = [*axes.get_lines(), *right.get_lines()]
        axes.legend(lines, [str(line.get_label()) for line in lines])
        return axes

    def state_dict(self) -> dict[str, Any]:
        """What has been recorded, as tensors and plain values."""
        return {"names": list(self._names), "rows": self._table()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._names, self._rows = list(state["names"]), list(state["rows"].unbind())
