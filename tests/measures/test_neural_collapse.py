"""Neural collapse: brute force, a perfect simplex, and the optimum of the model with features held to given ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.measures.neural_collapse import (
    alignment,
    collapse,
    collapsed_features,
    means_and_scatter,
    simplex_deviation,
    variability,
)


def sample(noise: float = 0.5, classes: int = 4, dimensions: int = 6, each: int = 9):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(each)
    centres = torch.randn(classes, dimensions, generator=generator, dtype=torch.float64)
    return centres[labels] + noise * torch.randn(
        len(labels), dimensions, generator=generator, dtype=torch.float64
    ), labels


def test_variability_is_that_of_numpy_loops() -> None:
    features, labels = sample()
    h, y = features.numpy(), labels.numpy()
    means = np.stack([h[y == k].mean(0) for k in range(4)])
    centre = means.mean(0)
    between = sum(np.outer(m - centre, m - centre) for m in means) / 4
    within = sum(np.outer(one - means[k], one - means[k]) for one, k in zip(h, y, strict=True)) / len(h)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 4
    assert variability(features, labels, 4).item() == pytest.approx(expected, rel=1e-9)


def test_a_simplex_has_collapsed_and_a_rotation_changes_nothing() -> None:
    corners = torch.eye(5, dtype=torch.float64) - 0.2
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    found = collapse((3.0 * corners @ rotation).repeat(6, 1), torch.arange(5).repeat(6), 0.1 * corners @ rotation)
    for gauge in (found.nc1, found.nc2, found.nc3):
        assert gauge.item() == pytest.approx(0.0, abs=1e-7)


def test_gauges_grow_with_what_they_gauge() -> None:
    (near, labels), (far, _) = sample(0.1), sample(1.0)
    assert variability(near, labels, 4) < 0.1 * variability(far, labels, 4)
    means, _ = means_and_scatter(near, labels, 4)
    simplex = torch.eye(4, dtype=torch.float64) - 0.25
    assert simplex_deviation(means) > 0.1 > simplex_deviation(simplex)
    assert alignment(-simplex, simplex).item() == pytest.approx(2.0)


def test_optimised_features_are_a_minimum_and_vary_less() -> None:
    given, labels = sample()
    kept = [collapsed_features(given, labels, 4, strength, 0.01) for strength in (1.0, 0.1, 0.01)]
    levels = [variability(h, labels, 4).item() for h, _ in kept]
    assert levels[2] < levels[1] < levels[0] < variability(given, labels, 4).item()
    h, w = (one.clone().requires_grad_() for one in kept[1])
    y = F.one_hot(labels).double()
    objective = (
        (h @ w.T - y).square().sum() / (2 * len(h)) + 0.005 * w.square().sum() + 0.05 * (h - given).square().sum()
    )
    for gradient in torch.autograd.grad(objective, (h, w)):
        assert gradient.abs().max() < 1e-8


def test_wrong_input_is_refused() -> None:
    features, labels = sample()
    with pytest.raises(TikhonError, match="N, D"):
        collapse(features[0], labels, torch.zeros(4, 6))
    with pytest.raises(TikhonError, match="does not read"):
        collapse(features, labels, torch.zeros(4, 5))
    with pytest.raises(TikhonError, match="each of the 5 classes"):
        collapse(features, labels, torch.zeros(5, 6))
    with pytest.raises(TikhonError, match="positive"):
        collapsed_features(features, labels, 4, 0.0, 0.1)
