"""The generalisation gap: against scipy, a simulation of what its intervals cover, and its drawing."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.figure import Figure

from tikhon import TikhonError
from tikhon.measures.generalisation import gap_over_seeds, generalisation_gap


def test_shares_have_the_intervals_of_wilson_and_newcombe() -> None:
    found = generalisation_gap(torch.arange(70) < 56, torch.arange(80) < 48)
    assert found.gap == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)  # Newcombe 1998, Table II
    for (share, low, high), (x, n) in ((found.train, (56, 70)), (found.test, (48, 80))):
        expected = scipy.stats.binomtest(x, n).proportion_ci(method="wilson")
        assert (share, low, high) == pytest.approx((x / n, expected.low, expected.high))
    assert not found.lower_is_better


def test_losses_have_the_intervals_of_student_and_welch() -> None:
    generator = np.random.default_rng(0)
    train, test = generator.exponential(0.1, 400), generator.exponential(0.5, 90)
    found = generalisation_gap(torch.from_numpy(train), torch.from_numpy(test).float())
    expected = scipy.stats.ttest_ind(test, train, equal_var=False).confidence_interval()
    assert found.gap == pytest.approx((test.mean() - train.mean(), expected.low, expected.high), rel=1e-5)
    student = scipy.stats.t.interval(0.95, 399, train.mean(), scipy.stats.sem(train))
    assert found.train == pytest.approx((train.mean(), *student))
    assert found.lower_is_better


def test_intervals_cover_the_gap_about_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(1000):
        train, test = (torch.rand(n, generator=generator) < p for n, p in ((150, 0.97), (60, 0.85)))
        _, low, high = generalisation_gap(train, test).gap
        covered += low <= 0.12 <= high
    assert covered / 1000 == pytest.approx(0.95, abs=0.025)


def test_over_seeds_it_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(1)
    shared = generator.normal(0, 0.1, 6)
    train, test = 0.95 + shared, 0.9 + shared + generator.normal(0, 0.01, 6)
    for lower, (a, b) in ((False, (train, test)), (True, (test, train))):
        found = gap_over_seeds(torch.from_numpy(train), torch.from_numpy(test), lower_is_better=lower)
        expected = scipy.stats.ttest_rel(a, b).confidence_interval()
        assert found.gap == pytest.approx((np.mean(a - b), expected.low, expected.high))
    assert found.train[2] - found.train[1] > 5 * (found.gap[2] - found.gap[1])  # what seeds share cancels in the gap


def test_one_number_has_no_interval() -> None:
    assert gap_over_seeds(torch.tensor([0.9]), torch.tensor([0.8])).gap == pytest.approx((0.1, None, None))
    assert generalisation_gap(torch.tensor([0.5]), torch.tensor([1.0, 2.0])).gap == (1.0, None, None)


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_plot_of_seeds_has_a_line_for_each(seeds) -> None:
    train, test = 0.9 + 0.01 * torch.arange(seeds), 0.8 + 0.02 * torch.arange(seeds)
    found = gap_over_seeds(train, test)
    axes = Figure().add_subplot()
    assert found.plot(axes) is axes
    lines = [line.get_ydata().tolist() for line in axes.lines]
    assert lines[:-1] == torch.stack([train, test], 1).double().tolist()
    assert lines[-1] == [found.train[0], found.test[0]]
    assert len(axes.collections) == (2 if seeds > 1 else 0)  # an interval for each
    assert [label.get_text() for label in axes.get_xticklabels()] == ["train", "test"]
    assert ("[" in axes.get_title()) == (seeds > 1)


def test_the_plot_of_one_model() -> None:
    found = generalisation_gap(torch.arange(70) < 56, torch.arange(80) < 48)
    axes = found.plot(Figure().add_subplot())
    assert axes.get_title() == "gap 0.2 [0.0524, 0.334]"
    for place, (segment, (_, low, high)) in enumerate(
        zip([one.get_segments()[0] for one in axes.collections], (found.train, found.test), strict=True)
    ):
        np.testing.assert_allclose(segment, [[place, low], [place, high]])
    assert axes.get_ylabel() == "metric"
    assert generalisation_gap(torch.rand(3), torch.rand(3)).plot(Figure().add_subplot()).get_ylabel() == "loss"


def test_wrong_input_is_refused() -> None:
    right, losses = torch.ones(3, dtype=torch.bool), torch.ones(3)
    with pytest.raises(TikhonError, match="of one kind"):
        generalisation_gap(right, losses)
    with pytest.raises(TikhonError, match="as bool, or losses"):
        generalisation_gap(right.long(), right.long())
    with pytest.raises(TikhonError, match="train must be"):
        generalisation_gap(losses[:, None], losses)
    with pytest.raises(TikhonError, match="test must be"):
        generalisation_gap(right, right[:0])
    with pytest.raises(TikhonError, match="test holds NaN"):
        generalisation_gap(losses, torch.tensor([float("nan")]))
    with pytest.raises(TikhonError, match="level"):
        generalisation_gap(right, right, level=95)
    with pytest.raises(TikhonError, match="one of each for every seed"):
        gap_over_seeds(losses, losses[:2])
