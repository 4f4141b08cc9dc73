"""Loki: predict the class nearest to all that is probable, in a distance between classes, seen or not."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError

__all__ = ["frechet_predict", "frechet_scores"]

card = Card(
    title="Geometry-Aware Adaptation for Pretrained Models",
    authors="Roberts, Li, Adila, Cromp, Huang, Zhao, Sala",
    year=2023,
    arxiv="2307.12226",
    problems=("shift",),
    formula=r"\hat y = \arg\min_y \sum_k p_k\,d(y,k)^2",
    claim="Reaches classes that were never seen in training, without training, and errs less far.",
    helps="Classes with a known distance: a hierarchy, an order, an embedding of their names.",
    hurts="Distances that have nothing to do with what the model confuses; confident wrong predictions.",
    cost="One product of a matrix batch x known classes with one known x all classes.",
    neutral="",
    kind="decision rule",
)


def frechet_scores(probabilities: Tensor, distances: Tensor) -> Tensor:
    """-sum_k p_k d(k, y)^2 of every sample and class (Roberts et al. 2023, arXiv 2307.12226).

    probabilities: (B, K) over the classes that the model knows; distances: (K, M), from these to all M classes, at
    least 0, not squared. Returns (B, M), at most 0: the greatest belongs to the Frechet mean of the labels.

    >>> frechet_scores(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    tensor([[-2., -1., -2.]])
    """
    if probabilities.ndim != 2 or distances.ndim != 2 or probabilities.shape[1] != distances.shape[0]:
        raise TikhonError(
            f"Probabilities (B, K) and distances (K, M) are needed, not {tuple(probabilities.shape)} and "
            f"{tuple(distances.shape)}."
        )
    return -probabilities @ distances.to(probabilities).square()


def frechet_predict(probabilities: Tensor, distances: Tensor, temperature: float = 1.0) -> Tensor:
    """argmin_y sum_k p_k d(k, y)^2 of every sample: the class whose mean squared distance to the prediction is least.

    probabilities: (B, K) over the classes that the model knows; distances: (K, M), from these to all M classes, known
    or not, at least 0, not squared; temperature: positive, of the probabilities: below 1 it sharpens them, towards
    argmax. Returns (B,), indices of columns of `distances`. Raises `TikhonError` where shapes do not fit.
    Source: Roberts et al. 2023, arXiv 2307.12226.

    >>> import torch, tikhon
    >>> places = torch.tensor([0.0, 1.0, 2.0])  # the model knows classes 0 and 2
    >>> distances = (places[[0, 2], None] - places).abs()
    >>> tikhon.frechet_predict(torch.tensor([[0.5, 0.5], [0.9, 0.1]]), distances)
    tensor([1, 0])
    """
    if not temperature > 0:
        raise TikhonError(f"The temperature must be positive, not {temperature}.")
    if temperature != 1.0:
        powered = probabilities.clamp_min(0.0).log().div(temperature).softmax(1)
        return frechet_scores(powered, distances).argmax(1)
    return frechet_scores(probabilities, distances).argmax(1)
