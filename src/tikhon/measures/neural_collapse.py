"""Neural collapse: how near the features of a network are to one point a class, at the corners of a simplex."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32

__all__ = ["collapse", "collapsed_features", "Collapse", "variability", "simplex_deviation", "alignment"]

card = Card(
    title="Perturbation Analysis of Neural Collapse",
    authors="Tirer, Huang, Niles-Weed",
    year=2022,
    arxiv="2210.16658",
    problems=("overfitting",),
    formula=r"NC_1=\tfrac1K\mathrm{tr}(\Sigma_W\Sigma_B^{+}),\quad \min_{W,H}\tfrac1{2Kn}\lVert WH-Y\rVert^2"
    r"+\tfrac{\lambda_W}2\lVert W\rVert^2+\tfrac{\lambda_H}2\lVert H-H_0\rVert^2",
    claim="Optimised features vary less within a class than the given ones, and the less they are held to these, "
    "the nearer they come to collapse.",
    helps="A look at which layer separates the classes, and at how far training has gone past zero error.",
    hurts="Fewer samples a class than needed for its mean, and labels that are wrong.",
    cost="One pseudo-inverse of a matrix features x features.",
    neutral="",
    kind="measure",
)


@dataclass(frozen=True)
class Collapse:
    """The three gauges of neural collapse, as tensors (): all are 0 where features have collapsed.

    nc1: variability within classes against that between; nc2: distance of the centred class means from a simplex;
    nc3: distance of the classifier from these means.
    """

    nc1: Tensor
    nc2: Tensor
    nc3: Tensor


def means_and_scatter(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Centred class means M (K, D) and the covariance within classes S_W (D, D).

        M_k = mean of class k - mean of the class means,   S_W = (1/N) sum_i (h_i - mean of its class)(...)^T

    features: (N, D); labels: (N,) in [0, K). A class without samples has a mean of 0: give only classes that occur.
    """
    h = at_least_float32(features)
    members = F.one_hot(labels, classes).to(h.dtype)
    means = members.T @ h / members.sum(0).clamp_min(1.0)[:, None]
    within = h - means[labels]
    return means - means.mean(0), within.T @ within / len(h)


def variability(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """NC1 = tr(S_W pinv(S_B)) / K (Papyan, Han, Donoho 2020, arXiv 2008.08186), at least 0; shapes as above.

    >>> variability(torch.tensor([[1.0], [3.0], [-1.0], [-3.0]]), torch.tensor([0, 0, 1, 1]), classes=2)
    tensor(0.1250)
    """
    means, within = means_and_scatter(features, labels, classes)
    between = means.T @ means / classes
    # S_B has rank K - 1: what lies beyond is rounding and must not be inverted.
    inverse = torch.linalg.pinv(between, rtol=1e-5 if between.dtype == torch.float32 else 1e-10, hermitian=True)
    return torch.trace(within @ inverse) / classes


def simplex_deviation(means: Tensor) -> Tensor:
    """NC2 = || M M^T / ||M M^T||_F - (I - 1/K) / sqrt(K - 1) ||_F of centred class means M (K, D); in [0, 2].

    K: at least 2.

    >>> simplex_deviation(torch.tensor([[1.0], [-1.0]]))
    tensor(0.)
    """
    means = at_least_float32(means)
    gram, count = means @ means.T, len(means)
    simplex = torch.eye(count, dtype=gram.dtype, device=gram.device) - 1.0 / count
    return _frobenius(gram / _frobenius(gram).clamp_min(torch.finfo(gram.dtype).tiny) - simplex / math.sqrt(count - 1))


def alignment(weight: Tensor, means: Tensor) -> Tensor:
    """NC3 = || W M^T / ||W M^T||_F - (I - 1/K) / sqrt(K - 1) ||_F of a classifier W (K, D) and means M; in [0, 2].

    K: at least 2.
    """
    weight, means = at_least_float32(weight), at_least_float32(means)
    product, count = weight @ means.T, len(means)
    simplex = torch.eye(count, dtype=product.dtype, device=product.device) - 1.0 / count
    return _frobenius(
        product / _frobenius(product).clamp_min(torch.finfo(product.dtype).tiny) - simplex / math.sqrt(count - 1)
    )


def _frobenius(matrix: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(matrix)
    return length


def collapse(features: Tensor, labels: Tensor, weight: Tensor) -> Collapse:
    """How near features are to neural collapse.

    features: (N, D), what the classifier reads; labels: (N,) int64; weight: (K, D), the classifier's. Raises
    `TikhonError` where shapes do not fit, with fewer than two classes, or where a class has no sample.
    Source: Papyan, Han, Donoho 2020, arXiv 2008.08186, as used by Tirer, Huang, Niles-Weed 2022, arXiv 2210.16658.

    >>> import torch, tikhon
    >>> corners = torch.eye(3) - 1 / 3
    >>> tikhon.collapse(corners.repeat(4, 1), torch.arange(3).repeat(4), corners).nc1
    tensor(0.)
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or weight.ndim != 2:
        raise TikhonError(
            f"collapse needs features (N, D), labels (N,) and weight (K, D), not {tuple(features.shape)}, "
            f"{tuple(labels.shape)} and {tuple(weight.shape)}."
        )
    classes = len(weight)
    if features.shape[1] != weight.shape[1] or classes < 2:
        raise TikhonError(
            f"A classifier of shape {tuple(weight.shape)} does not read features of shape {tuple(features.shape)}, "
            "or has one class only."
        )
    if not torch.equal(labels.unique(), torch.arange(classes, device=labels.device)):
        raise TikhonError(
            f"collapse needs samples of each of the {classes} classes, with labels from 0 to {classes - 1}."
        )
    means, _ = means_and_scatter(features, labels, classes)
    return Collapse(
        nc1=variability(features, labels, classes),
        nc2=simplex_deviation(means),
        nc3=alignment(weight.detach(), means),
    )


def collapsed_features(
    initial: Tensor, labels: Tensor, classes: int, feature_strength: float, weight_strength: float, rounds: int = 500
) -> tuple[Tensor, Tensor]:
    """Features and classifier that minimise the model of Tirer, Huang, Niles-Weed 2022, by turns of exact solutions.

        (1/2N) ||H W^T - Y||^2 + (weight_strength / 2) ||W||^2 + (feature_strength / 2) ||H - H_0||^2

    initial: H_0 (N, D), the features that H is held to; labels: (N,) in [0, classes), Y their one-hot rows; both
    strengths positive; rounds: turns of one solution for W given H and one for H given W. Returns H (N, D), W (K, D).
    """
    if not (feature_strength > 0 and weight_strength > 0):
        raise TikhonError(f"Both strengths must be positive, not {feature_strength} and {weight_strength}.")
    features = at_least_float32(initial)
    given, count = features, len(features)
    y = F.one_hot(labels, classes).to(features.dtype)
    eye = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    weight = y.new_zeros(classes, features.shape[1])
    for _ in range(rounds):
        gram = features.T @ features / count + weight_strength * eye
        weight = torch.linalg.solve(gram, features.T @ y / count).T
        held = weight.T @ weight / count + feature_strength * eye
        features = torch.linalg.solve(held, (y @ weight / count + feature_strength * given).T).T
    return features, weight
