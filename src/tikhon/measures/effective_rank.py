"""Effective rank: in how many directions weights and features of a network really extend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tikhon.core.figures import given_or_new
from tikhon.core.parameters import effective_weights, select
from tikhon.core.unit_moments import unit_moments
from tikhon.math.precision import at_least_float32

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["layer_ranks", "LayerRanks", "effective_rank", "stable_rank"]


def effective_rank(singular: Tensor) -> Tensor:
    """exp of the entropy of singular values as shares of their sum (Roy and Vetterli 2007).

    singular: (..., R), at least 0, as of `torch.linalg.svdvals`. Returns (...), in [1, R]; 0 where all are 0. R for R
    equal values, 1 for one alone.

    >>> effective_rank(torch.tensor([[1.0, 1.0, 1.0], [5.0, 0.0, 0.0]]))
    tensor([3., 1.])
    """
    singular = at_least_float32(singular)
    tiny = torch.finfo(singular.dtype).tiny
    total = singular.sum(-1, keepdim=True)
    shares = singular / total.clamp_min(tiny)
    entropy = -(shares * shares.clamp_min(tiny).log()).sum(-1)
    return torch.where(total[..., 0] > 0, entropy.exp(), 0.0)


def stable_rank(singular: Tensor) -> Tensor:
    """||W||_F^2 / ||W||_2^2 of singular values (Rudelson and Vershynin 2007): at most the rank, and steadier.

    singular: (..., R), at least 0. Returns (...), in [1, R]; 0 where all are 0.

    >>> stable_rank(torch.tensor([2.0, 1.0, 0.0]))
    tensor(1.2500)
    """
    singular = at_least_float32(singular)
    shares = singular / singular.amax(-1, keepdim=True).clamp_min(torch.finfo(singular.dtype).tiny)
    return shares.square().sum(-1)


@dataclass(frozen=True)
class LayerRanks:
    """By layer, in the order of the model: of weights and of features the effective and the stable rank, and the full
    one, which is the smaller side of the matrix."""

    weights: dict[str, tuple[float, float, int]]
    features: dict[str, tuple[float, float, int]]

    def plot(self, axes: Axes | None = None) -> Axes:
        """Effective ranks as shares of the full rank, layer by layer, with the number on each bar."""
        axes = given_or_new(axes)
        start = 0
        for kind, ranks in (("weights", self.weights), ("features", self.features)):
            places = [start + number for number in range(len(ranks))]
            bars = axes.bar(places, [effective / full for effective, _, full in ranks.values()], label=kind)
            axes.bar_label(bars, [f"{effective:.0f}" for effective, _, _ in ranks.values()])
            start += len(ranks)
        axes.set_xticks(range(start), [*self.weights, *self.features], rotation=90)
        axes.set_ylim(0.0, 1.1)
        axes.set_ylabel("effective rank / full rank")
        axes.legend()
        return axes


def layer_ranks(model: nn.Module, inputs: Tensor, at: Sequence[str] | None = None) -> LayerRanks:
    """The effective and stable rank of every weight, and of the features of every layer over a data set.

    Features of low rank early in training, or falling ranks late in it, are a sign that units do the same or nothing,
    and in continual and reinforcement learning that the network can no longer learn.

    model: taken as in eval mode; weights of two or more axes count, all but the first taken as one; inputs: (N, ...),
    many more than units; at: modules whose outputs are features, every activation by default, uncentred, positions
    of convolutions counted as samples. Raises `TikhonError` where there is nothing to look at.

    Cost: a pass over the data, singular values of every weight and eigenvalues of a matrix units x units a layer.
    Source: Roy, Vetterli 2007, The effective rank: a measure of effective dimensionality.

    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> _ = model[0].weight.data.copy_(torch.eye(2))
    >>> found = layer_ranks(model, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    >>> [round(rank, 3) for rank in (found.weights["0.weight"][0], found.features["1"][0])]
    [2.0, 1.0]
    """
    features = {}
    for name, moments in unit_moments(model, inputs, at, "layer_ranks").items():
        singular = torch.linalg.eigvalsh(moments.products).clamp_min(0.0).sqrt()
        # Squares have lost what is below the root of their rounding.
        singular = torch.where(singular > 1e-7 * singular.max(), singular, 0.0)
        features[name] = _ranks(singular, min(moments.rows, len(singular)))
    weights = {}
    for name, weight in effective_weights(select(model)).items():
        singular = torch.linalg.svdvals(at_least_float32(weight.detach()).flatten(1))
        weights[name] = _ranks(singular, len(singular))
    return LayerRanks(weights, features)


def _ranks(singular: Tensor, full: int) -> tuple[float, float, int]:
    return float(effective_rank(singular)), float(stable_rank(singular)), full
