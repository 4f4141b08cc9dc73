"""Activation hash: ReLUs as a hash of the input, how often codes collide, and how far they sort the classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.core.outputs import ROWS, read_outputs
from tikhon.math.matching import clustering_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["activation_hash", "ActivationHash", "neural_codes", "redundancy"]

card = Card(
    title="Neural networks behave as hash encoders: An empirical study",
    authors="He, Lei, Ke, Tao",
    year=2021,
    arxiv="2101.05490",
    problems=("overfitting",),
    formula=r"c(x)=\mathbb{1}[a(x)>0],\quad \text{redundancy}=1-|\{c(x_i)\}|/n",
    claim="Codes of trained networks hardly ever collide, and simple classifiers sort them; width, training time and "
    "sample size decide how well.",
    helps="Seeing whether a ReLU network is wide enough, trained enough, and what it has made of its classes.",
    hurts="Layers so wide that every code is unique at initialisation: redundancy then tells nothing.",
    cost="One pass over the data; K-means, nearest neighbours and logistic regressions on bits.",
    neutral="",
    kind="measure",
)


@dataclass(frozen=True, eq=False)
class ActivationHash:
    """redundancy: share of training samples whose code another one has already; test_redundancy: of test samples;
    kmeans, test_kmeans: accuracy of clusters of each, matched to classes; knn, logistic: test accuracy of nearest
    neighbours and of logistic regression on the training codes; within, between: (units + 1,), how many pairs of test
    samples of one class, and of two, have codes that differ in so many bits."""

    redundancy: float
    test_redundancy: float
    kmeans: float
    test_kmeans: float
    knn: float
    logistic: float
    within: Tensor
    between: Tensor

    def plot(self, axes: Axes | None = None) -> Axes:
        """Hamming distances of test codes, as shares of the bits: inside classes, and between them."""
        axes = given_or_new(axes)
        units = len(self.within) - 1
        edges = np.linspace(0.0, 1.0, min(units + 1, 40) + 1)
        for name, counts in (("one class", self.within), ("two classes", self.between)):
            shares = counts.double() / counts.sum().clamp_min(1)
            places = np.arange(units + 1) / max(units, 1)
            axes.hist(places, edges.tolist(), weights=shares.numpy(), alpha=0.6, label=name)
        axes.set_xlabel("share of bits in which two codes differ")
        axes.set_ylabel("share of pairs")
        axes.set_title(f"redundancy {self.test_redundancy:.1%}, nearest neighbours {self.knn:.1%}")
        axes.legend()
        return axes


def neural_codes(model: nn.Module, inputs: Tensor, at: Sequence[str] | None = None) -> Tensor:
    """Which units are active, sample by sample: the bits 1[output > 0] of the layers `at`, one after the other.

    model: taken as in eval mode; inputs: (N, ...); at: names of modules, every `nn.ReLU` by default; of a ReLU that is
    a function, name the layer before it. Returns (N, units), bool. Raises `TikhonError` where there is no such module.

    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    >>> neural_codes(model, torch.tensor([[1.0], [2.0], [-1.0]])).unique(dim=0).tolist()
    [[False], [True]]
    """
    names = at
    if names is None:
        names = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    if not names:
        raise TikhonError(f"{type(model).__name__} has no nn.ReLU to read codes from: name the layers with at=.")
    batches = read_outputs(model, inputs, names, "neural_codes", lambda _, output: (output > 0).flatten(1))
    return torch.cat([torch.cat([bits for _, bits in calls], dim=1) for calls in batches])


def redundancy(codes: Tensor) -> float:
    """1 - (different codes) / N of codes (N, units), N at least 1; in [0, 1): 0 where no two samples collide.

    >>> redundancy(torch.tensor([[True, False], [True, False], [False, True], [True, True]]))
    0.25
    """
    return 1.0 - len(codes.unique(dim=0)) / len(codes)


def activation_hash(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    test_inputs: Tensor,
    test_labels: Tensor,
    at: Sequence[str] | None = None,
    neighbours: int = 9,
    seed: int = 0,
) -> ActivationHash:
    """How a ReLU network hashes its data: how often codes collide, and what simple classifiers read from them.

    model: taken as in eval mode; inputs, labels: (N, ...) and (N,) int64, of the training set; test_inputs,
    test_labels: likewise; at: as for `neural_codes`; neighbours: k of the nearest neighbours by Hamming distance, at
    most N, 9 in the official code; seed: of K-means, which gets as many clusters as there are classes, and of logistic
    regression, one against one. Raises `TikhonError` where shapes do not fit. Source: He et al. 2021, arXiv 2101.05490.

    >>> import torch, tikhon
    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2))
    >>> inputs, labels = torch.tensor([[9.0, 0.0], [0.0, 9.0]]).repeat(20, 1), torch.arange(2).repeat(20)
    >>> found = tikhon.activation_hash(model, inputs, labels, inputs, labels)
    >>> found.redundancy, found.knn
    (0.95, 1.0)
    """
    for one, other in ((inputs, labels), (test_inputs, test_labels)):
        if other.shape != one.shape[:1] or other.is_floating_point() or not len(other):
            raise TikhonError(
                f"activation_hash needs a label for every sample, (N,) integers, not {other.dtype} of shape "
                f"{tuple(other.shape)} for inputs of shape {tuple(one.shape)}."
            )
    if not 1 <= neighbours <= len(labels):
        raise TikhonError(f"neighbours must be between 1 and {len(labels)}, the training samples, not {neighbours}.")
    train, test = (neural_codes(model, one, at).cpu() for one in (inputs, test_inputs))
    y, test_y = labels.cpu(), test_labels.cpu()
    classes = len(y.unique())
    if classes < 2:
        raise TikhonError("activation_hash needs training samples of two classes at least.")
    numbers, test_numbers = train.float().numpy(), test.float().numpy()

    def grouped(codes: Any, of: Tensor) -> float:
        clusters = KMeans(min(classes, len(np.unique(codes, axis=0))), random_state=seed, n_init=1).fit_predict(codes)
        return clustering_accuracy(torch.from_numpy(clusters).long(), of)

    nearest = KNeighborsClassifier(neighbours, algorithm="brute", metric="hamming")
    nearest.fit(train.numpy(), y.numpy())
    linear = OneVsOneClassifier(LogisticRegression(random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps are enough to compare
        linear.fit(numbers, y.numpy())
    within, between = _hamming_counts(test, test_y)
    return ActivationHash(
        redundancy=redundancy(train),
        test_redundancy=redundancy(test),
        kmeans=grouped(numbers, y),
        test_kmeans=grouped(test_numbers, test_y),
        knn=float((nearest.predict(test.numpy()) == test_y.numpy()).mean()),
        logistic=float((linear.predict(test_numbers) == test_y.numpy()).mean()),
        within=within,
        between=between,
    )


def _hamming_counts(codes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How many pairs of two samples differ in 0, 1, ... units bits, of one class and of two."""
    units = codes.shape[1]
    signs = 2.0 * codes.float() - 1.0
    counts = torch.zeros(2, units + 1, dtype=torch.int64)
    place = torch.arange(len(codes))
    for rows in place.split(ROWS):
        distances = ((units - signs[rows] @ signs.T) / 2).round().long()
        later, same = place > rows[:, None], labels == labels[rows, None]
        counts[0] += torch.bincount(distances[later & same], minlength=units + 1)
        counts[1] += torch.bincount(distances[later & ~same], minlength=units + 1)
    return counts[0], counts[1]
