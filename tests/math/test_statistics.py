"""Intervals against scipy.stats, printed tables and how often they cover."""

import numpy as np
import pytest
import scipy.stats
import torch

from tikhon.core.errors import TikhonError
from tikhon.math.statistics import (
    mean_interval,
    newcombe_interval,
    paired_difference,
    welch_difference,
    wilson_interval,
)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_mean_interval_agrees_with_scipy(n, level):
    values = np.random.default_rng(n).normal(0.9, 0.02, n)
    low, high = scipy.stats.t.interval(level, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert mean_interval(values, level) == pytest.approx((values.mean(), low, high), rel=1e-12)


def test_mean_interval_by_the_printed_table():
    # t_{4, 0.975} = 2.776 in every table; 1..5 has s = sqrt(2.5).
    mean, low, high = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert high - mean == pytest.approx(2.776 * np.sqrt(2.5 / 5), rel=2e-4)
    assert mean - low == pytest.approx(high - mean)


def test_intervals_cover_as_often_as_they_say():
    samples = np.random.default_rng(0).normal(size=(4000, 5))
    intervals = np.array([mean_interval(sample, 0.9)[1:] for sample in samples])
    covered = ((intervals[:, 0] < 0) & (intervals[:, 1] > 0)).mean()
    assert covered == pytest.approx(0.9, abs=4 * np.sqrt(0.9 * 0.1 / 4000))


def test_one_value_has_no_interval():
    assert mean_interval([0.25]) == (0.25, None, None)
    assert paired_difference([1.0], [0.75]) == (0.25, None, None)


def test_paired_difference_is_the_paired_t_test():
    generator = np.random.default_rng(3)
    seeds = generator.normal(0, 1, 6)  # what both arms share
    a, b = seeds + generator.normal(0.1, 0.01, 6), seeds + generator.normal(0, 0.01, 6)
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    mean, low, high = paired_difference(a, b)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert mean == pytest.approx(np.mean(a - b))
    assert high - low < 0.1 * (scipy.stats.sem(a) + scipy.stats.sem(b))  # pairing removes what is shared


def test_welch_is_that_of_scipy():
    generator = np.random.default_rng(5)
    a, b = generator.normal(1.0, 0.1, 7), generator.normal(0.8, 1.0, 30)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    difference, low, high = welch_difference(a, b, 0.9)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert difference == pytest.approx(a.mean() - b.mean())


def test_welch_at_its_edges():
    assert welch_difference([1.0], [0.0, 2.0]) == (0.0, None, None)
    assert welch_difference([2.0, 2.0], [1.0, 1.0]) == (1.0, 1.0, 1.0)
    one_varies = welch_difference([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert one_varies == pytest.approx((2 - mean, 2 - high, 2 - low))  # the other's degrees of freedom alone


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_is_that_of_scipy(level):
    x, n = torch.tensor([0, 3, 50, 99, 100, 1]), torch.tensor([10, 4, 100, 100, 100, 1])
    low, high = wilson_interval(x.double(), n.double(), level)
    for row, (k, trials) in enumerate(zip(x.tolist(), n.tolist(), strict=True)):
        expected = scipy.stats.binomtest(k, trials).proportion_ci(level, method="wilson")
        assert (float(low[row]), float(high[row])) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_without_trials_a_share_may_be_anything():
    low, high = wilson_interval(torch.zeros(2), torch.tensor([0.0, 5.0]))
    assert (low[0], high[0]) == (0.0, 1.0)
    assert low[1] == 0.0
    assert high[1] < 0.5


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # Newcombe 1998, Table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0000)),
        ((10, 10, 0, 10), (0.6075, 1.0000)),
    ],
)
def test_newcombe_by_the_printed_table(counts, expected):
    low, high = newcombe_interval(*torch.tensor(counts, dtype=torch.float64))
    assert (float(low), float(high)) == pytest.approx(expected, abs=6e-5)


def test_intervals_of_shares_cover_about_as_often_as_they_say():
    generator = np.random.default_rng(2)
    p, q, n, m = 0.9, 0.8, 40, 60
    x, y = (torch.from_numpy(generator.binomial(*one, 5000)).double() for one in ((n, p), (m, q)))
    trials, others = torch.full_like(x, n), torch.full_like(y, m)
    low, high = wilson_interval(x, trials)
    assert ((low <= p) & (p <= high)).double().mean().item() == pytest.approx(0.95, abs=0.02)
    low, high = newcombe_interval(x, trials, y, others)
    assert ((low <= p - q) & (p - q <= high)).double().mean().item() == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one number"),
        (lambda: mean_interval([[1.0, 2.0]]), "shape"),
        (lambda: mean_interval([1.0, np.nan]), "NaN"),
        (lambda: mean_interval([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "every seed"),
        (lambda: welch_difference([1.0, np.inf], [1.0]), "a holds NaN"),
        (lambda: welch_difference([1.0, 2.0], []), "b has the shape"),
        (lambda: wilson_interval(torch.ones(1), torch.ones(1), 1.0), "between 0 and 1"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(TikhonError, match=message):
        call()
