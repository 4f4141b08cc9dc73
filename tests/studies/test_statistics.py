"""Intervals against scipy.stats, calibration against a loop over samples."""

import json

import numpy as np
import pytest
import scipy.stats

from tikhon.core.errors import TikhonError
from tikhon.studies.statistics import expected_calibration_error, mean_interval, paired_difference, reliability


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


def brute_force_ece(p, y, bins):
    total = 0.0
    for m in range(1, bins + 1):
        inside = [i for i in range(len(y)) if (m - 1) / bins < max(p[i]) <= m / bins]
        if inside:
            accuracy = sum(int(np.argmax(p[i])) == y[i] for i in inside) / len(inside)
            confidence = sum(max(p[i]) for i in inside) / len(inside)
            total += len(inside) / len(y) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize(("n", "classes", "bins"), [(300, 10, 15), (200, 2, 10), (1, 3, 15), (50, 4, 1)])
def test_calibration_error_against_a_loop(n, classes, bins):
    generator = np.random.default_rng(n)
    p = generator.dirichlet(np.full(classes, 0.3), n)
    y = generator.integers(0, classes, n)
    assert expected_calibration_error(p, y, bins) == pytest.approx(brute_force_ece(p, y, bins), abs=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    p = np.array([[k / 10, 1 - k / 10] for k in range(5, 11)])
    assert reliability(p, np.zeros(6, dtype=int), bins=10)["count"] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_calibrated_predictions_have_small_error_and_overconfident_ones_their_gap():
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, 50_000)
    right = generator.uniform(size=50_000) < confidence
    p = np.stack([confidence, 1 - confidence], axis=1)
    assert expected_calibration_error(p, np.where(right, 0, 1)) < 0.01
    half_right = generator.uniform(size=50_000) < 0.5
    assert expected_calibration_error(p, np.where(half_right, 0, 1)) == pytest.approx(0.25, abs=0.01)


def test_reliability_is_plain_json_with_none_for_empty_bins():
    diagram = reliability(np.array([[0.9, 0.1], [0.95, 0.05]], dtype=np.float32), np.array([0, 1]), bins=4)
    assert json.loads(json.dumps(diagram, allow_nan=False)) == diagram
    assert diagram["count"] == [0, 0, 0, 2]
    assert diagram["accuracy"] == [None, None, None, 0.5]
    assert diagram["confidence"][3] == pytest.approx(0.925)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one number"),
        (lambda: mean_interval([[1.0, 2.0]]), "shape"),
        (lambda: mean_interval([1.0, np.nan]), "NaN"),
        (lambda: mean_interval([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "every seed"),
        (lambda: reliability([[0.5, 0.5]], [0, 1]), "shape"),
        (lambda: reliability([[3.0, -1.0]], [0]), "softmax"),
        (lambda: reliability([[np.nan, 1.0]], [0]), "softmax"),
        (lambda: reliability([[0.5, 0.5]], [2]), r"\[0, 2\)"),
        (lambda: reliability([[0.5, 0.5]], [-1]), r"\[0, 2\)"),
        (lambda: reliability([[0.5, 0.5]], [0.0]), "integers"),
        (lambda: reliability([[0.5, 0.5]], [0], bins=0), "at least one bin"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(TikhonError, match=message):
        call()
