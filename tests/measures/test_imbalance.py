"""Imbalance: against scikit-learn and scipy, closed forms, and how often the worst group's interval covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from sklearn.metrics import balanced_accuracy_score, recall_score

from tikhon import TikhonError
from tikhon.measures.imbalance import (
    accuracy_by_class,
    accuracy_by_group,
    class_counts,
    effective_number,
    imbalance_ratio,
)


def sample(n: int = 300, classes: int = 4):
    generator = np.random.default_rng(0)
    labels = generator.choice(classes, n, p=[0.6, 0.25, 0.1, 0.05])
    predicted = np.where(generator.uniform(size=n) < 0.7, labels, generator.integers(0, classes, n))
    return torch.from_numpy(predicted), torch.from_numpy(labels)


def test_recalls_and_balanced_accuracy_are_those_of_scikit_learn() -> None:
    predicted, labels = sample()
    found = accuracy_by_class(predicted, labels)
    expected = recall_score(labels.numpy(), predicted.numpy(), average=None)
    np.testing.assert_allclose(found.accuracy, expected)
    assert found.balanced == pytest.approx(balanced_accuracy_score(labels.numpy(), predicted.numpy()))
    assert found.overall == pytest.approx(float((predicted == labels).double().mean()))
    assert found.worst[0] == pytest.approx(expected.min())
    assert found.worst_group == expected.argmin()


def test_intervals_are_wilsons_and_the_worst_has_those_of_all_at_once() -> None:
    predicted, labels = sample()
    found = accuracy_by_class(predicted, labels)
    hits = class_counts(labels[predicted == labels], 4)
    wide = []
    for group in range(4):
        test = scipy.stats.binomtest(int(hits[group]), int(found.count[group]))
        one = test.proportion_ci(0.95, method="wilson")
        assert (float(found.low[group]), float(found.high[group])) == pytest.approx((one.low, one.high))
        wide.append(test.proportion_ci(1 - 0.05 / 4, method="wilson"))
    assert found.worst[1:] == pytest.approx((min(one.low for one in wide), min(one.high for one in wide)))


def test_the_interval_of_the_worst_covers_although_it_was_chosen() -> None:
    """Ten equal groups: the worst one's own interval misses the truth far more often than it says."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(10).repeat_interleave(40)
    covered = naive = 0
    for _ in range(500):
        found = accuracy_by_group(torch.rand(400, generator=generator) < 0.8, groups)
        covered += found.worst[1] <= 0.8 <= found.worst[2]
        naive += float(found.low[found.worst_group]) <= 0.8 <= float(found.high[found.worst_group])
    assert covered / 500 > 0.94
    assert naive / 500 < 0.85


def test_groups_of_which_some_are_empty() -> None:
    right = torch.tensor([True, False, True])
    found = accuracy_by_group(right, torch.tensor([0, 0, 3]))
    torch.testing.assert_close(
        found.accuracy, torch.tensor([0.5, math.nan, math.nan, 1.0], dtype=torch.float64), equal_nan=True
    )
    assert found.count.tolist() == [2, 0, 0, 1]
    assert found.balanced == 0.75
    assert found.overall == pytest.approx(2 / 3)
    assert (found.worst[0], found.worst_group) == (0.5, 0)
    assert accuracy_by_class(torch.tensor([1]), torch.tensor([0]), classes=3).count.tolist() == [1, 0, 0]


def test_the_same_predictions_by_class_and_by_group() -> None:
    predicted, labels = sample()
    found, other = accuracy_by_class(predicted, labels), accuracy_by_group(predicted == labels, labels)
    assert torch.equal(found.accuracy, other.accuracy)
    assert found.worst == other.worst


def test_counts_and_their_ratio() -> None:
    labels = torch.tensor([2, 0, 2, 2])
    assert class_counts(labels).tolist() == [1, 0, 3]
    assert class_counts(labels, 5).tolist() == [1, 0, 3, 0, 0]
    assert imbalance_ratio(torch.tensor([10, 40, 4])) == 10.0
    assert imbalance_ratio(class_counts(labels)) == math.inf


def test_the_effective_number_is_a_geometric_sum_between_one_and_n() -> None:
    counts = torch.tensor([0, 1, 7, 100])
    for beta in (0.0, 0.5, 0.9, 0.999):
        expected = [sum(beta**i for i in range(n)) for n in counts.tolist()]
        np.testing.assert_allclose(effective_number(counts, beta), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(effective_number(counts, 1 - 1e-9), counts, rtol=1e-6)


def test_the_plot_has_a_row_for_every_group_and_the_worst_in_red() -> None:
    predicted, labels = sample()
    found = accuracy_by_class(predicted, labels, classes=5)  # one class has no sample, and no dot
    axes = Figure().add_subplot()
    assert found.plot(axes, names=["a", "b", "c", "d", "e"]) is axes
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert texts == [f"{one} (n={n})" for one, n in zip("abcde", found.count.tolist(), strict=True)]
    bars, dots = axes.collections
    np.testing.assert_allclose(dots.get_offsets(), [[a, i] for i, a in enumerate(found.accuracy[:4].tolist())])
    np.testing.assert_allclose([one[:, 0] for one in bars.get_segments()], torch.stack([found.low, found.high], 1)[:4])
    red = [tuple(one) == to_rgba("C3") for one in dots.get_facecolors()]
    assert red == [place == found.worst_group for place in range(4)]
    assert axes.lines[0].get_xdata()[0] == found.overall


def test_wrong_input_is_refused() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(TikhonError, match=r"\(n,\) bool"):
        accuracy_by_group(labels, labels)
    with pytest.raises(TikhonError, match="as many groups"):
        accuracy_by_group(labels.bool(), labels[:1])
    with pytest.raises(TikhonError, match="groups must lie in"):
        accuracy_by_group(labels.bool(), -labels)
    with pytest.raises(TikhonError, match=r"predictions \(1,\) for labels \(2,\)"):
        accuracy_by_class(labels[:1], labels)
    with pytest.raises(TikhonError, match="predictions are torch"):
        accuracy_by_class(labels.float(), labels)
    with pytest.raises(TikhonError, match=r"\[0, 1\)"):
        accuracy_by_class(labels, labels, classes=1)
    with pytest.raises(TikhonError, match="labels must be"):
        class_counts(labels[:0])
    for counts in (torch.tensor([0, 0]), torch.tensor([-1, 2]), torch.zeros(0), torch.ones(1, 1)):
        with pytest.raises(TikhonError, match="not all 0"):
            imbalance_ratio(counts)
    with pytest.raises(TikhonError, match="beta"):
        effective_number(labels, 1.0)
