"""Confident learning: how many labels are wrong, which class they should be, and which samples they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.figures import given_or_new
from tikhon.measures.predictions import checked_predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confident_learning", "ConfidentLearning", "confident_joint"]


@dataclass(frozen=True)
class ConfidentLearning:
    """What labels are estimated to be worth.

    joint: (K, K) float64, the estimated share of samples that are labelled i (row) and truly j (column); sums to 1;
    suspects: (m,) int64, the samples whose label is estimated to be wrong, the most suspect first; self_confidence:
    (n,) float64, the probability of every sample's label.
    """

    joint: Tensor
    suspects: Tensor
    self_confidence: Tensor

    @property
    def share(self) -> float:
        """The estimated share of wrong labels, in [0, 1]."""
        return float(1.0 - self.joint.trace())

    @property
    def noise_matrix(self) -> Tensor:
        """(K, K): estimated P(labelled i | truly j); columns sum to 1, or are 0 where nothing is truly j."""
        totals = self.joint.sum(0)
        return self.joint / torch.where(totals > 0, totals, 1.0)

    def plot(self, axes: Axes | None = None, names: Sequence[str] | None = None) -> Axes:
        """The wrong labels as a map: estimated samples labelled as the row that are truly the column, in numbers."""
        axes = given_or_new(axes)
        counts = (self.joint * len(self.self_confidence)).fill_diagonal_(torch.nan)
        image = axes.imshow(counts.numpy(), cmap="Reds", vmin=0)
        axes.figure.colorbar(image, ax=axes, label="samples")
        if len(counts) <= 12:  # beyond, numbers do not fit into their squares
            for row, column in (counts.round() > 0).nonzero().tolist():
                axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center")
        titles = [str(k) for k in range(len(counts))] if names is None else list(names)
        axes.set_xticks(range(len(titles)), titles)
        axes.set_yticks(range(len(titles)), titles)
        axes.set(xlabel="estimated true label", ylabel="label", title=f"wrong labels {100 * self.share:.1f}%")
        return axes


def confident_joint(probabilities: Tensor, labels: Tensor) -> Tensor:
    """C, (K, K) int64: how many samples labelled i (row) are confidently of class j (column).

        t_j = mean of p_j over samples labelled j,   j of a sample = argmax of p_j over all j with p_j >= t_j

    probabilities: (n, K), of networks that did not train on the sample; labels: (n,). Samples that reach no threshold
    are not counted. Source: Northcutt, Jiang, Chuang 2019, arXiv 1911.00068, equations 1 and 2.

    >>> confident_joint(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]]), torch.tensor([0, 0, 1, 1]))
    tensor([[1, 0],
            [1, 1]])
    """
    p, y = checked_predictions(probabilities, labels)
    classes = p.shape[1]
    members = F.one_hot(y, classes).double()
    # Of a class without samples nobody can be confident; and a mean may round to above all that it is the mean of.
    thresholds = torch.where(members.sum(0) > 0, (p * members).sum(0) / members.sum(0), torch.inf)
    reached = p >= thresholds - 1e-9
    confident = reached.any(1)
    found = p.masked_fill(~reached, -1.0).argmax(1)
    return torch.bincount((classes * y + found)[confident], minlength=classes**2).reshape(classes, classes)


def confident_learning(probabilities: Tensor, labels: Tensor) -> ConfidentLearning:
    """Estimate how many labels are wrong and which, from what networks predict for samples that they did not train on.

    Use it before training on labels of unknown quality. Where every label is wrong as often as a class is rare, or the
    predictions are poor, the estimate is too; predictions for samples that were trained on find nothing.

    probabilities: (n, K), by cross-validation; labels: (n,) in [0, K). The joint is C of `confident_joint`, its rows
    scaled to how often each label occurs; suspects are, of every label, as many samples as the joint has wrong ones,
    those with the lowest self-confidence (prune by class). An interval of the share comes from
    `bootstrap_interval(lambda p, y: confident_learning(p, y).share, probabilities, labels)`.
    Reference: Northcutt, Jiang, Chuang 2019, arXiv 1911.00068, equation 3 and section 3.2.

    >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    >>> found = confident_learning(p, torch.tensor([0, 0, 1, 1]))
    >>> found.share, found.suspects
    (0.25, tensor([3]))
    """
    p, y = checked_predictions(probabilities, labels)
    classes = p.shape[1]
    joint = confident_joint(p, y).double()
    sizes = torch.bincount(y, minlength=classes).double()
    joint *= (sizes / joint.sum(1).clamp_min(1.0))[:, None]
    self_confidence = p.gather(1, y[:, None])[:, 0]
    of_label = [(y == k).nonzero()[:, 0] for k in range(classes)]
    expected = joint.sum(1) - joint.diagonal()
    doubtful = [
        members[self_confidence[members].argsort(stable=True)[:count]]
        for members, count in zip(of_label, expected.round().long().tolist(), strict=True)
    ]
    suspects = torch.cat(doubtful)
    order = self_confidence[suspects].argsort(stable=True)
    return ConfidentLearning(joint / len(y), suspects[order], self_confidence)
