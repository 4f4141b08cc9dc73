"""Calibration errors against loops over samples, torchmetrics, and predictions whose error is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torchmetrics.functional.classification import multiclass_calibration_error

from tikhon import TikhonError
from tikhon.measures import calibration
from tikhon.measures.calibration import (
    adaptive_calibration_error,
    classwise_calibration_error,
    debiased_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    reliability,
)


def sample(n: int, classes: int, seed: int = 0, concentration: float = 0.3):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(classes, concentration), n)
    return torch.from_numpy(p), torch.from_numpy(generator.integers(0, classes, n))


def two_classes(n: int, skill: float, seed: int):
    """Confidences uniform on [0.5, 1], right with probability 0.5 + skill (confidence - 0.5): the L1 error is (1 -
    skill) / 4 and the L2 error (1 - skill) / sqrt(12)."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1, n)
    right = generator.uniform(size=n) < 0.5 + skill * (confidence - 0.5)
    return torch.from_numpy(np.stack([confidence, 1 - confidence], 1)), torch.from_numpy(np.where(right, 0, 1))


def members(scores, bins, equal_mass):
    """Lists of places, bin by bin, made one score at a time."""
    if not equal_mass:
        return [[i for i, one in enumerate(scores) if (m - 1) / bins < one <= m / bins] for m in range(1, bins + 1)]
    found = [[] for _ in range(bins)]
    for i, one in enumerate(scores):
        below, equal = sum(other < one for other in scores), sum(other == one for other in scores)
        found[int((below + equal / 2) / len(scores) * bins)].append(i)
    return found


def gaps(scores, hits, bins, equal_mass):
    """(samples, |mean hit - mean score|) of every bin that has samples."""
    return [
        (len(inside), abs(np.mean([hits[i] for i in inside]) - np.mean([scores[i] for i in inside])))
        for inside in members(scores, bins, equal_mass)
        if inside
    ]


@pytest.mark.parametrize("equal_mass", [False, True])
@pytest.mark.parametrize(("n", "classes", "bins"), [(300, 10, 15), (200, 2, 10), (1, 3, 15), (50, 4, 1), (7, 3, 20)])
def test_errors_against_a_loop(n, classes, bins, equal_mass) -> None:
    p, y = sample(n, classes, n)
    if n == 300:
        p[:120] = p[0]  # ties across what would be several bins
    scores, hits = p.max(1).values.tolist(), (p.argmax(1) == y).double().tolist()
    found = gaps(scores, hits, bins, equal_mass)
    expected = sum(count * gap for count, gap in found) / n
    assert expected_calibration_error(p, y, bins, equal_mass) == pytest.approx(expected, abs=1e-12)
    worst = max(gap for _, gap in found)
    assert maximum_calibration_error(p, y, bins, equal_mass) == pytest.approx(worst, abs=1e-12)
    by_class = [
        sum(count * gap for count, gap in gaps(p[:, k].tolist(), (y == k).double().tolist(), bins, equal_mass)) / n
        for k in range(classes)
    ]
    assert classwise_calibration_error(p, y, bins, equal_mass) == pytest.approx(np.mean(by_class), abs=1e-12)


@pytest.mark.parametrize("bins", [5, 15])
def test_errors_are_those_of_torchmetrics(bins) -> None:
    p, y = sample(400, 6)
    for norm, mine in (("l1", expected_calibration_error), ("max", maximum_calibration_error)):
        other = multiclass_calibration_error(p, y, num_classes=6, n_bins=bins, norm=norm)
        assert mine(p, y, bins) == pytest.approx(float(other), abs=1e-6)


def test_classes_are_binned_a_few_at_a_time_to_the_same_end(monkeypatch) -> None:
    p, y = sample(100, 7)
    expected = [classwise_calibration_error(p, y, equal_mass=mass) for mass in (False, True)]
    monkeypatch.setattr(calibration, "NUMBERS_AT_ONCE", 250)
    found = [classwise_calibration_error(p, y, equal_mass=mass) for mass in (False, True)]
    assert found == pytest.approx(expected, abs=1e-14)


def test_adaptive_ranges_of_nixon() -> None:
    """Equation of arXiv 1904.01685: sort every class's probabilities, cut into equal ranges, average all gaps."""
    p, y = sample(120, 3)
    expected = []
    for k in range(3):
        order = p[:, k].argsort()
        for inside in order.split(120 // 8):
            expected.append(abs(float((y[inside] == k).double().mean() - p[inside, k].mean())))
    assert adaptive_calibration_error(p, y, bins=8) == pytest.approx(np.mean(expected), abs=1e-12)


def test_equal_mass_bins_hold_as_many_samples_each_and_ignore_their_order() -> None:
    p, y = sample(60, 4)
    assert reliability(p, y, bins=6, equal_mass=True).count.tolist() == [10] * 6
    assert set(reliability(p, y, bins=7, equal_mass=True).count.tolist()) == {8, 9}
    p[:35] = p[0]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    found, other = (reliability(p[rows], y[rows], 6, equal_mass=True) for rows in (torch.arange(60), order))
    torch.testing.assert_close(found.accuracy, other.accuracy, equal_nan=True)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    p = torch.tensor([[k / 10, 1 - k / 10] for k in range(5, 11)], dtype=torch.float64)
    assert reliability(p, torch.zeros(6, dtype=torch.long), bins=10).count.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_calibrated_predictions_have_small_error_and_overconfident_ones_their_gap() -> None:
    assert expected_calibration_error(*two_classes(50_000, 1.0, 1)) < 0.01
    p, y = two_classes(50_000, 0.0, 1)
    assert expected_calibration_error(p, y) == pytest.approx(0.25, abs=0.01)
    assert reliability(p, y).overconfidence == pytest.approx(0.25, abs=0.01)
    assert reliability(p, y).overconfidence == pytest.approx(float((p.max(1).values - (y == 0).double()).mean()))


@pytest.mark.parametrize("skill", [1.0, 0.4])
def test_the_debiased_error_does_not_grow_as_samples_become_few(skill) -> None:
    """Mean of squares over 400 samples of 150: unbiased, where the plain estimate is too large by the noise of bins."""
    true = (1 - skill) ** 2 / 12
    plain, debiased = [], []
    for seed in range(400):
        p, y = two_classes(150, skill, seed)
        diagram = reliability(p, y, 15, equal_mass=True)
        squares = (diagram.accuracy - diagram.confidence).square()
        plain.append(float((diagram.count * squares).sum() / 150))
        debiased.append(debiased_calibration_error(p, y) ** 2)
    assert np.mean(plain) > true + 0.01
    # The root has no negative parts, which leaves a little of the bias where the true error is 0.
    assert np.mean(debiased) == pytest.approx(true, abs=0.006 if skill == 1.0 else 0.004)


def test_debiased_by_hand() -> None:
    # One bin: four predictions of 0.9, three of them right; the fifth is alone in its bin and left out.
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.6, 0.4]], dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 1, 0])
    expected = 4 / 5 * (0.15**2 - 0.75 * 0.25 / 3)
    assert expected < 0
    assert debiased_calibration_error(p, y, 10, equal_mass=False) == 0.0
    p[:4] = torch.tensor([0.0, 1.0])
    assert debiased_calibration_error(p, y, 10, equal_mass=False) == pytest.approx((0.8 * (0.75**2 - 0.0625)) ** 0.5)


def test_intervals_of_bins_are_wilsons() -> None:
    diagram = reliability(*sample(100, 3), bins=5)
    low, high = diagram.intervals()
    full = diagram.count > 0
    assert ((low <= diagram.accuracy) & (diagram.accuracy <= high))[full].all()
    assert low[~full].eq(0).all()
    assert high[~full].eq(1).all()


def test_plain_is_json_with_none_for_empty_bins() -> None:
    diagram = reliability(torch.tensor([[0.9, 0.1], [0.95, 0.05]]), torch.tensor([0, 1]), bins=4).plain()
    assert json.loads(json.dumps(diagram, allow_nan=False)) == diagram
    assert diagram["count"] == [0, 0, 0, 2]
    assert diagram["accuracy"] == [None, None, None, 0.5]
    assert diagram["confidence"][3] == pytest.approx(0.925)


def test_half_precision_and_gradients_are_taken_as_they_come() -> None:
    p, y = sample(50, 4)
    half = p.bfloat16().requires_grad_()
    assert expected_calibration_error(half, y) == pytest.approx(expected_calibration_error(p, y), abs=0.05)


def test_the_plot_shows_the_bins_with_samples() -> None:
    diagram = reliability(*sample(200, 3), bins=10)
    axes = Figure().add_subplot()
    assert diagram.plot(axes) is axes
    full = diagram.count > 0
    curve = axes.lines[1]
    np.testing.assert_allclose(curve.get_xdata(), diagram.confidence[full])
    np.testing.assert_allclose(curve.get_ydata(), diagram.accuracy[full])
    assert len(axes.collections[0].get_segments()) == int(full.sum())  # an interval for each
    sizes = axes.collections[1].get_sizes() - 10
    np.testing.assert_allclose(sizes / sizes.sum(), diagram.count[full] / 200)
    assert f"ECE {100 * diagram.expected_error:.1f}%" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("p", "y", "bins", "message"),
    [
        ([[0.5, 0.5]], [0, 1], 15, r"\(n, K\) and labels \(n,\)"),
        ([[3.0, -1.0]], [0], 15, "softmax"),
        ([[float("nan"), 1.0]], [0], 15, "softmax"),
        ([[0.5, 0.5]], [2], 15, r"\[0, 2\)"),
        ([[0.5, 0.5]], [-1], 15, r"\[0, 2\)"),
        ([[0.5, 0.5]], [0.0], 15, "integers"),
        ([[0.5, 0.5]], [0], 0, "at least one bin"),
    ],
)
def test_wrong_input_is_refused(p, y, bins, message) -> None:
    for measure in (reliability, classwise_calibration_error, debiased_calibration_error):
        with pytest.raises(TikhonError, match=message):
            measure(torch.tensor(p), torch.tensor(y), bins)
