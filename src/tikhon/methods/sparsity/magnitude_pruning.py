"""Magnitude pruning: as training goes on, more and more of the smallest weights are zero and stay so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, Where
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked

Scope = Literal["global", "layer"]


def cubic_sparsity(final: float, share: float) -> float:
    """s = s_f (1 - (1 - t)^3): fast at first, while there is much to lose (Zhu and Gupta 2017, equation 1, s_i = 0).

    final: s_f in [0, 1]; share: t, how much of the pruning phase is over, in [0, 1].

    >>> cubic_sparsity(1.0, 0.5)
    0.875
    """
    return final * (1.0 - (1.0 - share) ** 3)


def largest_kept(weights: Sequence[Tensor], sparsity: float, scope: Scope = "global") -> list[Tensor]:
    """Masks that keep the largest magnitudes: all but round(sparsity n) of n weights, together or of each tensor.

    weights: tensors of any shapes; sparsity: in [0, 1]. Returns a bool tensor for each. Ties are broken somehow: the
    number of weights that are kept is always exact.

    >>> largest_kept([torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0])], 0.5)
    [tensor([ True, False]), tensor([False,  True])]
    """
    flat = [weight.detach().abs().flatten() for weight in weights]
    if scope == "layer":
        return [_top(one, sparsity).reshape(weight.shape) for one, weight in zip(flat, weights, strict=True)]
    masks = _top(torch.cat(flat), sparsity).split([len(one) for one in flat])
    return [mask.reshape(weight.shape) for mask, weight in zip(masks, weights, strict=True)]


def _top(magnitudes: Tensor, sparsity: float) -> Tensor:
    kept = len(magnitudes) - round(sparsity * len(magnitudes))
    mask = torch.zeros_like(magnitudes, dtype=torch.bool)
    return mask.index_fill(0, magnitudes.topk(kept, sorted=False).indices, True)


class MagnitudePruning(Method):
    """Set the smallest weights to zero while the network trains, a growing share of them, and keep them there.

    Use it to see how much of a network is needed, and to store it small: it is the baseline of all pruning, simple and
    hard to beat. The zeros are scattered: without sparse kernels nothing runs faster, for which remove whole units
    (`tikhon.DHSPG`, `tikhon.GroupSparseEnvelope`). Train long enough after the last weight went for the others to take
    over.

        s(t) = sparsity (1 - (1 - t)^3),   t the share of `over` that has passed;   w = 0 where |w| is among the s(t) n
        smallest

    A mask is held over every step, whatever momentum is left in the optimizer, and what is pruned stays pruned. Weights
    that are averaged (EMA, SWA) carry traces of what they were: begin the average after the pruning.

    sparsity: share of zeros in the end, in [0, 1); over: begin and end of pruning as shares of training, with equal
    ends all at once, 1 excluded so that something follows; every: prune at every so many steps; scope: "global" ranks
    all selected weights together, which prunes wide layers most, "layer" takes the same share of each, as the paper of
    2017 does; where: which weights; the paper of 2017 leaves out none, others the first and the last layer.

    Cost: one pass over the weights a step; a selection of the largest at each pruning, on the device.
    Reference: Han, Pool, Tran, Dally 2015, arXiv 1506.02626; the schedule: Zhu, Gupta 2017, arXiv 1710.01878.

    >>> recipe = tikhon.Recipe(tikhon.MagnitudePruning(sparsity=0.9))
    """

    card = Card(
        title="Learning both Weights and Connections for Efficient Neural Networks",
        authors="Han, Pool, Tran, Dally",
        year=2015,
        arxiv="1506.02626",
        problems=("compression",),
        formula=r"w_i = 0\ \text{where}\ |w_i|\ \text{is among the}\ s(t)n\ \text{smallest},"
        r"\quad s(t) = s_f(1-(1-t)^3)",
        claim="Removes about nine of ten weights of large networks without loss of accuracy.",
        helps="Large networks that are to be stored or sent; baselines of sparsity.",
        hurts="Speed on ordinary hardware, which gains nothing; very high sparsity in narrow layers.",
        cost="One pass over the weights a step, and a selection of the largest at each pruning.",
        neutral="sparsity=0",
    )
    slots = {"after_step": "map"}
    needs = frozenset({"zero-keeping weights", "length"})

    def __init__(
        self,
        sparsity: Strength = 0.9,
        over: tuple[float, float] = (0.1, 0.7),
        every: int = 10,
        scope: Scope = "global",
        where: Where = "weights",
    ) -> None:
        super().__init__()
        self.sparsity = checked("sparsity", sparsity, low=0.0, high=0.9999)
        begin, end = over if isinstance(over, tuple) and len(over) == 2 else (1.0, 0.0)
        if not 0.0 <= begin <= end < 1.0:
            raise TikhonError(f"over is the begin and end of pruning as shares of training, not {over}.")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise TikhonError(f"every must be a positive number of steps, not {every!r}.")
        if scope not in ("global", "layer"):
            raise TikhonError(f"scope is 'global' or 'layer', not {scope!r}.")
        self.begin, self.end, self.every, self.where = begin, end, every, where
        self.scope: Scope = scope
        self.masks = Snapshot()
        self.reached = 0.0
        """The share of the selected weights that is zero."""

    def after_step(self, model: nn.Module, step: Step) -> None:
        chosen = step.select(self.where)
        leaves: list[Tensor] = [one.leaf for one in chosen]
        wanted, over = self._wanted(step)
        if wanted > self.reached and (over or step.number % self.every == 0):
            masks = largest_kept(leaves, wanted, self.scope)
            # As numbers: to multiply by them takes a tenth of what it takes to fill by bits.
            self.masks.take({one.name: mask.to(leaf) for one, leaf, mask in zip(chosen, leaves, masks, strict=True)})
            self.reached = wanted
        if self.masks.tensors:
            torch._foreach_mul_(leaves, self.masks.matching(chosen))

    def _wanted(self, step: Step) -> tuple[float, bool]:
        """The sparsity of now, and whether the pruning phase is over."""
        if step.progress < self.begin:
            return 0.0, False
        length = self.end - self.begin
        share = 1.0 if length == 0.0 else min(1.0, (step.progress - self.begin) / length)
        return cubic_sparsity(step.value(self.sparsity), share), share == 1.0

    def get_extra_state(self) -> dict[str, Any]:
        return {"reached": self.reached}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.reached = float(state["reached"])
