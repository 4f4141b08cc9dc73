"""Boundary tilting: distances against attacks, the nearest centroid of scikit-learn, and angles that are known."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from tikhon import TikhonError
from tikhon.math.attacks import projected_ascent
from tikhon.measures.adversarial_strength import adversarial_strength, deviation_cosine, hyperplane_distances

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(40) % 2
CENTRES = torch.tensor([[-2.0, 0.0, 1.0], [1.0, 1.0, 1.0]]).double()
X = CENTRES[LABELS] + 0.5 * torch.randn(40, 3, generator=GENERATOR, dtype=torch.float64)
W, B = torch.tensor([1.0, -0.7, 2.0]).double(), torch.tensor(-1.5).double()


def test_the_nearest_centroid_classifier_is_not_tilted() -> None:
    means = torch.stack([X[LABELS == 0].mean(0), X[LABELS == 1].mean(0)])
    weight = means[1] - means[0]
    bias = -weight @ means.mean(0)
    found = adversarial_strength(X, LABELS, 3.0 * weight, 3.0 * bias)
    assert found.strength == pytest.approx(1.0)
    assert found.angle == pytest.approx(0.0, abs=1e-6)
    assert found.offset == pytest.approx(0.0, abs=1e-12)
    theirs = NearestCentroid().fit(X.numpy(), LABELS.numpy())
    assert found.accuracy == pytest.approx(theirs.score(X.numpy(), LABELS.numpy()))
    predicted = torch.from_numpy(theirs.predict(X.numpy()))
    assert torch.equal((X @ weight + bias > 0).long(), predicted)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 60.0, 89.0])
def test_strength_is_how_much_nearer_the_means_are(degrees) -> None:
    means = torch.stack([X[LABELS == 0].mean(0), X[LABELS == 1].mean(0)])
    direction = means[1] - means[0]
    across = torch.linalg.cross(direction, torch.tensor([0.0, 0.0, 1.0]).double())
    angle = math.radians(degrees)
    weight = math.cos(angle) * direction / direction.norm() + math.sin(angle) * across / across.norm()
    bias = -weight @ means.mean(0)
    found = adversarial_strength(X, LABELS, weight, bias)
    assert found.angle == pytest.approx(angle, abs=1e-6)
    distance = hyperplane_distances(means, weight, bias)
    assert (0.5 * direction.norm() / distance).tolist() == pytest.approx([found.strength] * 2)


def test_distances_are_what_an_attack_needs() -> None:
    found = adversarial_strength(X, LABELS, W, B)
    side = torch.sign(X @ W + B)
    for share, flips in ((0.999, False), (1.001, True)):
        for sample, sign, distance in zip(X, side, found.distances.tolist(), strict=True):
            moved = projected_ascent(
                lambda x, sign=sign: -sign * (x @ W + B),
                sample[None],
                torch.zeros(1, 3).double(),
                share * distance,
                share * distance / 4,
                5,
                "2",
            )
            assert (torch.sign(moved @ W + B)[0] != sign).item() == flips


def test_the_plane_keeps_scores_and_the_drawing_its_boundaries() -> None:
    found = adversarial_strength(X, LABELS, W, B)
    torch.testing.assert_close((found.plane @ found.normal - found.offset) * W.norm(), X @ W + B)
    assert found.normal.norm() == pytest.approx(1.0)
    means = torch.stack([found.plane[label == LABELS].mean(0) for label in (0, 1)])
    torch.testing.assert_close(means.mean(0), torch.zeros(2).double(), atol=1e-12, rtol=0.0)
    assert means[1, 0] > 0
    assert found.accuracy == pytest.approx(float(((X @ W + B > 0) == (LABELS == 1)).double().mean()))
    axes = found.plot()
    centroid, boundary = axes.get_lines()
    first, second = (torch.tensor(one).double() for one in (boundary.get_xy1(), boundary.get_xy2()))
    assert (found.normal @ first).item() == pytest.approx(found.offset)
    assert (found.normal @ second).item() == pytest.approx(found.offset)
    assert list(centroid.get_xdata()) == [0.0, 0.0]
    plt.close(axes.figure)


def test_edges() -> None:
    assert deviation_cosine(torch.zeros(3), torch.ones(3)) == 0.0


@pytest.mark.parametrize("length", [1e-200, 1e-160, 1e160, 1e200])
def test_lengths_whose_squares_leave_the_range_of_numbers_do_not_bend_the_angle(length: float) -> None:
    first, second = torch.tensor([3.0, 4.0]).double(), torch.tensor([-2.0, 0.0]).double()
    assert float(deviation_cosine(length * first, length * second)) == pytest.approx(0.6)
    assert math.isinf(
        adversarial_strength(
            torch.tensor([[-1.0, 0.0], [1.0, 0.0]]),
            torch.tensor([0, 1]),
            torch.tensor([0.0, 1.0]),
            torch.tensor(0.0),
        ).strength
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((X[0], LABELS, W, B), r"\(N, D\)"),
        ((X, LABELS, W[:2], B), r"\(N, D\)"),
        ((X, LABELS, W, W), r"\(N, D\)"),
        ((X, LABELS + 1, W, B), "labels 0 and 1"),
        ((X, torch.zeros_like(LABELS), W, B), "labels 0 and 1"),
        ((X, LABELS, 0.0 * W, B), "without direction"),
        ((torch.ones_like(X), LABELS, W, B), "without direction"),
    ],
)
def test_wrong_input_is_refused(arguments, says) -> None:
    with pytest.raises(TikhonError, match=says):
        adversarial_strength(*arguments)
