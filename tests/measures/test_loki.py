"""Loki: brute force over classes, the limits of its temperature, and shapes that do not fit."""

from __future__ import annotations

import pytest
import torch

from tikhon import TikhonError
from tikhon.measures.loki import frechet_predict, frechet_scores


def sample():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(40, 5, generator=generator, dtype=torch.float64).softmax(1)
    places = torch.randn(9, 2, generator=generator, dtype=torch.float64)
    return probabilities, torch.cdist(places[:5], places)


def test_it_is_the_least_mean_squared_distance() -> None:
    probabilities, distances = sample()
    for row, found in zip(probabilities, frechet_predict(probabilities, distances), strict=True):
        spreads = [sum(row[k] * distances[k, y] ** 2 for k in range(5)).item() for y in range(9)]
        assert found.item() == min(range(9), key=spreads.__getitem__)


def test_certain_predictions_and_sharp_temperatures_are_argmax() -> None:
    probabilities, distances = sample()
    certain = torch.eye(5, dtype=torch.float64)
    assert torch.equal(frechet_predict(certain, distances), torch.arange(5))
    assert torch.equal(frechet_predict(certain, distances, temperature=0.5), torch.arange(5))
    assert torch.equal(frechet_predict(probabilities, distances, temperature=0.01), probabilities.argmax(1))
    assert not torch.equal(frechet_predict(probabilities, distances), probabilities.argmax(1))


def test_equal_distances_are_argmax() -> None:
    probabilities, _ = sample()
    assert torch.equal(frechet_predict(probabilities, 1.0 - torch.eye(5)), probabilities.argmax(1))


def test_what_does_not_fit_is_refused() -> None:
    probabilities, distances = sample()
    with pytest.raises(TikhonError, match=r"\(40, 5\) and \(9, 5\)"):
        frechet_scores(probabilities, distances.T)
    with pytest.raises(TikhonError, match="temperature"):
        frechet_predict(probabilities, distances, temperature=0.0)
