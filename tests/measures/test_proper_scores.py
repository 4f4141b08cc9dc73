"""Proper scores against scikit-learn, and the parts of the Brier score against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import log_loss

from tikhon import TikhonError
from tikhon.measures.proper_scores import brier_decomposition, brier_score, negative_log_likelihood


def sample(n: int = 200, classes: int = 4):
    generator = np.random.default_rng(n)
    p = generator.dirichlet(np.full(classes, 0.5), n)
    y = np.array([generator.choice(classes, p=0.6 * row + 0.4 / classes) for row in p])
    return torch.from_numpy(p), torch.from_numpy(y)


def test_scores_are_those_of_scikit_learn_and_numpy() -> None:
    p, y = sample()
    expected = log_loss(y.numpy(), p.numpy(), labels=range(4))
    assert negative_log_likelihood(p, y) == pytest.approx(expected, rel=1e-9)
    assert brier_score(p, y) == pytest.approx(np.mean(np.sum((p.numpy() - np.eye(4)[y]) ** 2, axis=1)))


def test_scores_at_their_ends() -> None:
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert negative_log_likelihood(p, torch.tensor([0, 1])) == 0.0
    assert negative_log_likelihood(p, torch.tensor([0, 0])) == math.inf
    assert brier_score(p, torch.tensor([0, 1])) == 0.0
    assert brier_score(p, torch.tensor([1, 0])) == 2.0


def test_the_parts_of_the_brier_score_against_loops() -> None:
    p, y = sample()
    bins = 5
    parts = {"reliability": 0.0, "resolution": 0.0, "uncertainty": 0.0, "within": 0.0}
    for k in range(4):
        scores, hits = p[:, k].numpy(), (y == k).double().numpy()
        parts["uncertainty"] += hits.mean() * (1 - hits.mean())
        for m in range(bins):
            inside = (scores > m / bins) & (scores <= (m + 1) / bins)
            if not inside.any():
                continue
            f, o, share = scores[inside], hits[inside], inside.mean()
            parts["reliability"] += share * (f.mean() - o.mean()) ** 2
            parts["resolution"] += share * (o.mean() - hits.mean()) ** 2
            parts["within"] += share * (f.var() - 2 * np.mean((f - f.mean()) * (o - o.mean())))
    found = brier_decomposition(p, y, bins)
    for name, value in parts.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12), name
    assert found.score == brier_score(p, y)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_few_values_have_nothing_within_bins(equal_mass) -> None:
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]], dtype=torch.float64).repeat(20, 1)
    y = torch.randint(2, (60,), generator=torch.Generator().manual_seed(0))
    found = brier_decomposition(p, y, 30, equal_mass)
    assert found.within == pytest.approx(0.0, abs=1e-15)
    assert found.reliability > 0.01
    assert found.score == pytest.approx(found.reliability - found.resolution + found.uncertainty)


def test_knowing_frequencies_alone_scores_the_uncertainty() -> None:
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    found = brier_decomposition(torch.tensor([[0.6, 0.3, 0.1]]).repeat(10, 1), y)
    assert found.score == pytest.approx(found.uncertainty, abs=1e-7)
    assert found.resolution == pytest.approx(0.0, abs=1e-12)


def test_the_plot_adds_up_to_the_score() -> None:
    found = brier_decomposition(*sample())
    axes = Figure().add_subplot()
    assert found.plot(axes) is axes
    bars = {label.get_text(): bar for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}
    assert bars["resolution"].get_width() == -found.resolution
    within = bars["within bins"]
    assert within.get_x() + within.get_width() == pytest.approx(found.score)
    assert bars["Brier score"].get_width() == found.score
    assert bars["Brier score"].get_x() == 0.0


def test_wrong_input_is_refused() -> None:
    p, y = sample()
    for score in (negative_log_likelihood, brier_score, brier_decomposition):
        with pytest.raises(TikhonError, match="softmax"):
            score(2 * p, y)
    with pytest.raises(TikhonError, match="at least one bin"):
        brier_decomposition(p, y, 0)
