"""Difficulty: which samples a network learns late, forgets again or never believes, from its outputs by epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.math.difficulty import el1n, el2n, grand, last_layer_gradient_norms, max_margin, sum_margin
from tikhon.measures.predictions import checked_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "training_dynamics",
    "TrainingDynamics",
    "forgetting_events",
    "below_fake_margins",
    "el1n",
    "el2n",
    "grand",
    "last_layer_gradient_norms",
    "max_margin",
    "sum_margin",
]


@dataclass(frozen=True)
class TrainingDynamics:
    """What a network made of every sample, epoch by epoch: (E, N) each, on the CPU.

    loss: cross-entropy, in nats; margin: score of the label minus the largest other score; right: bool, whether the
    label was predicted.
    """

    loss: Tensor
    margin: Tensor
    right: Tensor

    @property
    def confidence(self) -> Tensor:
        """(N,): mean probability of the label over epochs (Swayamdipta et al. 2020, arXiv 2009.10795, equation 1)."""
        return self.loss.neg().exp().mean(0)

    @property
    def variability(self) -> Tensor:
        """(N,): standard deviation of the label's probability over epochs (as above, equation 2); in [0, 1/2]."""
        return self.loss.neg().exp().std(0, correction=0)

    @property
    def area_under_margin(self) -> Tensor:
        """AUM, (N,): the mean margin over epochs, low where a label is wrong (Pleiss et al. 2020, arXiv 2001.10528)."""
        return self.margin.mean(0)

    @property
    def forgetting_events(self) -> Tensor:
        """(N,): how often a sample was right and then wrong; see the function of this name, and `never_learned`."""
        return forgetting_events(self.right)

    @property
    def never_learned(self) -> Tensor:
        """(N,) bool: right after no epoch."""
        return ~self.right.any(0)

    def plot(self, axes: Axes | None = None) -> Axes:
        """The data map: confidence over variability, coloured by the share of epochs in which a sample was right.

        At the top left lie samples easy to learn, at the bottom left hard or mislabelled ones, to the right ambiguous.
        """
        axes = given_or_new(axes)
        dots = axes.scatter(
            self.variability.numpy(),
            self.confidence.numpy(),
            c=self.right.double().mean(0).numpy(),
            s=8,
            vmin=0,
            vmax=1,
        )
        axes.figure.colorbar(dots, ax=axes, label="share of epochs right")
        axes.set(xlabel="variability", ylabel="confidence in the label")
        return axes


def training_dynamics(scores: Iterable[Tensor], labels: Tensor) -> TrainingDynamics:
    """Follow every sample through training.

    Use it to find samples that are hard, forgotten or mislabelled, the last with `below_fake_margins` or
    `loss_mixture`. It tells samples apart only as long as the network has not memorised all of them.

    scores: after every epoch the logits (N, K), K at least 2, of all samples in the same order, in eval mode and
    without augmentation: a list, a tensor (E, N, K), or a generator, of which one epoch at a time is held; labels: (N,)
    in [0, K). Softmax of the scores must be the probabilities.

    >>> scores = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 3.0]]])
    >>> seen = training_dynamics(scores, torch.tensor([0, 1]))
    >>> seen.area_under_margin, seen.forgetting_events
    (tensor([0., 2.]), tensor([1, 0]))
    """
    y = checked_labels(labels)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for epoch, given in enumerate(scores):
        if given.ndim != 2 or len(given) != len(y) or given.shape[1] < 2:
            raise TikhonError(
                f"The scores of epoch {epoch} are {tuple(given.shape)}; {len(y)} labels need ({len(y)}, K), K above 1."
            )
        checked_labels(y, given.shape[1])
        z = given.detach().cpu().float()
        if not bool(z.isfinite().all()):
            raise TikhonError(f"The scores of epoch {epoch} hold NaN or infinity: training has diverged.")
        rows.append((F.cross_entropy(z, y, reduction="none"), -max_margin(z, y), z.argmax(1) == y))
    if not rows:
        raise TikhonError("There are no scores: give those of one epoch at least.")
    return TrainingDynamics(*(torch.stack(one) for one in zip(*rows, strict=True)))


def forgetting_events(right: Tensor) -> Tensor:
    """How often every sample was right after one epoch and wrong after the next.

    right: (E, N) bool, in the order of epochs. Returns (N,) int64. A sample that was never right has none, and yet is
    not easy: `~right.any(0)` tells these. Source: Toneva et al. 2019, arXiv 1812.05159, definition 2.1, there counted
    whenever a sample comes by in a batch.

    >>> forgetting_events(torch.tensor([[True, False], [False, False], [True, True], [False, True]]))
    tensor([2, 0])
    """
    if right.ndim != 2 or right.dtype != torch.bool:
        raise TikhonError(f"right must be (E, N) bool, not {tuple(right.shape)} {right.dtype}.")
    return (right[:-1] & ~right[1:]).sum(0)


def below_fake_margins(area_under_margin: Tensor, fake: Tensor, percentile: float = 99.0) -> Tensor:
    """Which samples have an area under the margin that samples of a made-up class reach too, so that they look wrong.

    Before training, give about 1 / (K + 1) of the samples a class that does not exist, K + 1 classes in all; in a
    second training, others. What the network thinks of these labels, which are wrong for sure, sets the threshold.

    area_under_margin: (N,); fake: (N,) bool, the samples with the made-up class; percentile: of their areas, 99 in the
    paper, in [0, 100]. Returns (N,) bool, False for the fake ones themselves.
    Source: Pleiss, Zhang, Elenberg, Weinberger 2020, arXiv 2001.10528, section 3.2.
    """
    if fake.dtype != torch.bool or fake.shape != area_under_margin.shape or not bool(fake.any()):
        raise TikhonError(
            f"fake must be bool, {tuple(area_under_margin.shape)} as the areas are, with one True at least."
        )
    if not 0.0 <= percentile <= 100.0:
        raise TikhonError(f"percentile must be in [0, 100], not {percentile}.")
    threshold = area_under_margin[fake].double().quantile(percentile / 100.0)
    return (area_under_margin <= threshold) & ~fake
