"""Shift: AUC, its variance and Holm's values by definition, how often there is a false alarm, and known shifts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from tikhon import TikhonError
from tikhon.measures.shift import _auc, classifier_two_sample, feature_shift, holm


def normal(n: int, d: int = 4, seed: int = 0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_auc_and_its_variance_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    low, high = np.round(rng.normal(size=30), 1), np.round(rng.normal(0.5, size=20), 1)  # with ties
    area, variance = _auc(low, high)
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    assert area == pytest.approx(roc_auc_score([0] * 30 + [1] * 20, np.concatenate([low, high])))
    assert variance == pytest.approx(wins.mean(1).var(ddof=1) / 20 + wins.mean(0).var(ddof=1) / 30)


def test_without_a_shift_intervals_cover_one_half() -> None:
    covered, alarms = 0, 0
    for seed in range(60):
        found = classifier_two_sample(normal(150, seed=2 * seed), normal(100, seed=2 * seed + 1))
        covered += found.auc[1] <= 0.5 <= found.auc[2]
        alarms += found.p_value < 0.05
    assert covered >= 55
    assert alarms <= 5


def test_a_shift_of_means_is_as_large_as_it_should_be() -> None:
    found = classifier_two_sample(normal(600), normal(600, seed=1) + torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert found.auc[1] < scipy.stats.norm.cdf(1 / np.sqrt(2)) < found.auc[2]  # of the best classifier there is
    assert found.p_value < 1e-10
    assert found.test_scores.mean() > found.train_scores.mean() + 0.1


def test_a_forest_sees_what_hangs_together_and_a_line_does_not() -> None:
    train, test = normal(300), normal(300, seed=1)
    test[:, 1] = test[:, 0] + 0.3 * test[:, 1]
    test[:, 1] /= test[:, 1].std()
    assert classifier_two_sample(train, test).auc[1] < 0.55
    assert classifier_two_sample(train, test, "forest").auc[1] > 0.75
    assert not feature_shift(train, test).shifted.any()


def test_scores_are_of_samples_that_were_held_out() -> None:
    """Labels that a classifier could only learn by heart are at chance."""
    same = normal(60, d=50)
    found = classifier_two_sample(same, same.clone(), "forest")
    assert found.auc[0] < 0.6
    assert found.train_scores.shape == found.test_scores.shape == (60,)
    assert found.auc == classifier_two_sample(same, same.clone(), "forest").auc


def test_what_is_told_apart_at_once_has_an_auc_of_one() -> None:
    found = classifier_two_sample(normal(40), normal(40, seed=1) + 50.0)
    assert found.auc == (1.0, 1.0, 1.0)
    assert found.p_value == 0.0
    constant = classifier_two_sample(torch.ones(20, 2), torch.ones(20, 2))
    assert constant.auc == (0.5, 0.5, 0.5)
    assert constant.p_value == 1.0


def test_features_are_tested_as_by_scipy_and_holm() -> None:
    train, test = normal(120).reshape(120, 2, 2), normal(90, seed=1).reshape(90, 2, 2)
    test[:, 1, 0] += 0.8
    found = feature_shift(train, test)
    each = [scipy.stats.ks_2samp(a, b) for a, b in zip(train.flatten(1).T, test.flatten(1).T, strict=True)]
    np.testing.assert_allclose(found.distances, [one.statistic for one in each])
    p = np.array([one.pvalue for one in each])
    steps = np.sort(p) * np.arange(4, 0, -1)
    expected = np.minimum(1.0, [steps[: i + 1].max() for i in range(4)])
    np.testing.assert_allclose(np.sort(found.p_values.numpy()), expected)
    assert found.shifted.tolist() == [False, False, True, False]


def test_holm_keeps_false_alarms_below_the_level() -> None:
    generator = torch.Generator().manual_seed(0)
    alarms = sum(bool((holm(torch.rand(20, generator=generator)) < 0.05).any()) for _ in range(2000))
    assert alarms / 2000 < 0.05 + 3 * 0.005
    assert torch.equal(holm(torch.tensor([1.0, 0.5])), torch.tensor([1.0, 1.0]))


def test_plots_draw_the_numbers() -> None:
    train, test = normal(100), normal(100, seed=1)
    test[:, 2] += 1.0
    axes = feature_shift(train, test).plot(Figure().add_subplot())
    assert axes.get_xticklabels()[0].get_text() == "2"
    assert axes.patches[0].get_facecolor() == to_rgba("C1")
    assert axes.patches[1].get_facecolor() == to_rgba("0.7")
    found = classifier_two_sample(train, test)
    axes = found.plot(Figure().add_subplot())
    assert axes.get_title().startswith(f"AUC {found.auc[0]:.3f}")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]


def test_wrong_input_is_refused() -> None:
    train, test = normal(50), normal(40)
    for test_of in (classifier_two_sample, feature_shift):
        with pytest.raises(TikhonError, match="samples of one shape"):
            test_of(train, test[:, :2])
        with pytest.raises(TikhonError, match="NaN or infinity"):
            test_of(train, test / 0.0)
        with pytest.raises(TikhonError, match="level"):
            test_of(train, test, level=1.0)
    with pytest.raises(TikhonError, match="'linear' or 'forest'"):
        classifier_two_sample(train, test, "tree")  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="folds=5 of 50 and 9 samples"):
        classifier_two_sample(train, test[:9])
