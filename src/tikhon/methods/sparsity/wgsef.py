"""Group sparse envelope: drive whole units to zero until about k of each layer remain, then really remove them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Where
from tikhon.core.pruning import remove
from tikhon.core.removable import Removable, find_removable
from tikhon.core.step import Step
from tikhon.core.strength import Schedule, Strength, checked
from tikhon.core.units import unit_norms
from tikhon.math.shares import capped_shares


def envelope(norms: Tensor, k: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """S_k: the convex envelope of half the squared norm on vectors with at most k non-zero groups.

        S_k(x) = (1/2) min_u sum_j d_j ||x_j||^2 / u_j,   0 <= u_j <= 1,  sum_j d_j u_j <= k

    norms: (..., n), ||x_j|| >= 0; k > 0, a number or (..., 1); weights: d_j > 0, (n,) or (..., n), ones by default.
    Returns (...). With unit weights this is half the squared k-support norm of the group norms (Argyriou, Foygel,
    Srebro 2012, arXiv 1204.5043); groups are of Refael, Arbel, Huleihel 2022, arXiv 2212.12921. Where at most k
    groups are non-zero it is half the squared norm. Raises `TikhonError` for a number k <= 0.

    >>> envelope(torch.tensor([3.0, 4.0]), k=2), envelope(torch.tensor([3.0, 4.0]), k=1)
    (tensor(12.5000), tensor(24.5000))
    """
    norms, k, d = _arguments(norms, k, weights)
    u = capped_shares(norms, torch.zeros_like(norms[..., :1]), k, d)
    return 0.5 * (d * norms.square() / u.masked_fill(u == 0, 1.0)).sum(dim=-1)  # u = 0 only where the norm is


def envelope_prox(norms: Tensor, strength: float | Tensor, k: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """By which factor the proximal map of strength * S_k shrinks each group: x_j = factor_j * t_j.

        factor_j = u_j / (u_j + strength d_j),   u_j = clip(c ||t_j|| - strength d_j, 0, 1),   sum_j d_j u_j = k

    norms: (..., n), ||t_j||; strength: >= 0, a number or (..., 1); k, weights: as for `envelope`. Returns (..., n) in
    [0, 1]. c is found exactly, in O(n log n): the sum is piecewise linear in c, so its piece is looked up and solved.
    The largest groups (u = 1) shrink by the factor 1 / (1 + strength), those between by the constant length
    strength d_j / c, the smallest are zero. Where at most k groups are non-zero, every u is 1. Raises `TikhonError` for
    numbers k <= 0 or strength < 0.

    >>> envelope_prox(torch.tensor([4.0, 2.0, 1.0]), strength=1.0, k=1)
    tensor([0.5000, 0.0000, 0.0000])
    """
    if not isinstance(strength, Tensor) and strength < 0:
        raise TikhonError(f"The strength of a proximal map must be at least 0, not {strength}.")
    norms, k, d = _arguments(norms, k, weights)
    penalty = torch.as_tensor(strength, dtype=norms.dtype, device=norms.device).expand_as(norms[..., :1])
    u = capped_shares(norms, penalty, k, d)
    divisor = u + penalty * d
    nothing = divisor == 0
    return (u / divisor.masked_fill(nothing, 1.0)).masked_fill(nothing, 1.0)


def _arguments(norms: Tensor, k: float | Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(k, Tensor) and not k > 0:
        raise TikhonError(f"k must be a positive number of groups, not {k}.")
    if norms.dtype not in (torch.float32, torch.float64):
        norms = norms.float()
    d = torch.ones_like(norms) if weights is None else weights.to(norms).expand_as(norms)
    return norms, torch.as_tensor(k, dtype=norms.dtype, device=norms.device).expand_as(norms[..., :1]), d


class GroupSparseEnvelope(Method):
    """Train so that about a chosen number of units of each layer remain; `export` removes the others.

    Use it to make a network smaller and faster when you know how many units you can afford: unlike with group lasso,
    the k largest units of a layer are not fought, only shrunk like by weight decay. After each step the weights make a
    proximal step; a group is a unit: its row or filter in every layer that feeds it, its bias, its batch norm's scale
    and shift. Units coupled by residual additions are one group. Layers whose units cannot be removed (the output,
    what enters a layer norm, attention or concatenation, grouped convolutions) are left alone.

        w <- prox_{r lambda S_k}(w),   S_k(w) = (1/2) min_u sum_j ||w_j||^2 / u_j,   0 <= u <= 1,  sum_j u_j <= k

    strength: lambda >= 0, multiplied by the learning rate r of the layer's weight (momentum and Adam's scaling are not
    in the metric); keep: k, a fraction of each layer's units in (0, 1], or a number of units above 1; where: whose
    weights choose the layers. A model that cannot be traced as a whole needs where="name of a submodule" that can.

    Not fewer than k units of a layer survive, and more as long as lambda or the training is too small: count them, and
    raise lambda. There is no final projection: what export removes was zero. An average of weights (EMA) is zero only
    where the weights were zero for long.

    Cost: a pass over the weights of the chosen layers a step, and one search over the norms of all layers together,
    about half a millisecond on a CPU however small the model is.
    Reference: Refael, Arbel, Huleihel 2022, arXiv 2212.12921.

    >>> recipe = tikhon.Recipe(tikhon.GroupSparseEnvelope(strength=0.03, keep=0.5))
    """

    card = Card(
        title="Learning k-Level Structured Sparse Neural Networks Using Group Envelope Regularization",
        authors="Refael, Arbel, Huleihel",
        year=2022,
        arxiv="2212.12921",
        problems=("compression", "overfitting"),
        formula=r"w \leftarrow \mathrm{prox}_{\eta\lambda S_k}(w),\quad "
        r"S_k(w)=\tfrac12\min_{0\le u\le1,\ \sum_j u_j\le k}\sum_j\lVert w_j\rVert^2/u_j",
        claim="Reaches a predefined group sparsity at convergence with negligible loss of accuracy, or gains.",
        helps="Over-wide layers, and a known budget of units.",
        hurts="Too large a strength shrinks the units that remain, too small a one leaves more than k of them.",
        cost="A pass over the weights of the chosen layers a step, and a search of about half a millisecond.",
    )
    slots = {"after_step": "map", "export": "prune"}
    needs = frozenset({"zero-keeping weights"})

    def __init__(self, strength: Strength = 0.03, keep: Strength = 0.5, where: Where = "weights") -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.keep = checked("keep", keep, low=1e-6)
        if isinstance(keep, Schedule) and min(keep.values) <= 1 < max(keep.values):
            raise TikhonError("keep is a fraction up to 1 and a number of units above: a schedule cannot be both.")
        self.where = where
        self.plan: dict[str, Tensor] = {}
        """After export: group name -> kept units, for `tikhon.core.pruning.apply_plan` on a fresh model."""
        self._removable = Removable()

    def check(self, model: nn.Module) -> None:
        # Here and not in `prepare`: this is the model as it was written, before any surgery that tracing cannot read.
        self._removable = find_removable(model, self.where, self.key)

    def after_step(self, model: nn.Module, step: Step) -> None:
        strength, keep = step.value(self.strength), step.value(self.keep)
        if strength == 0.0:
            return
        owned = self._removable.owned(step)
        if not owned:
            return
        groups, members = zip(*owned, strict=True)
        norms = pad_sequence([unit_norms(leaves) for leaves in members], batch_first=True)
        rates = [torch.as_tensor(step.learning_rate(leaves[0]), dtype=torch.float64) for leaves in members]
        counts = [max(1, round(keep * group.size if keep <= 1 else keep)) for group in groups]
        k = torch.tensor(counts, device=norms.device)[:, None]
        factors = envelope_prox(norms, strength * torch.stack(rates)[:, None].to(norms), k)
        for leaves, factor in zip(members, factors, strict=True):
            for leaf in leaves:
                leaf.mul_(factor[: len(leaf)].reshape(-1, *[1] * (leaf.ndim - 1)))

    def export(self, model: nn.Module) -> nn.Module:
        self.plan = self._removable.plan(model)
        return remove(model, self.plan, self._removable.part)
