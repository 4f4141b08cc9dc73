"""Margins against closed forms of linear models, grids around samples of networks, and the distance to a circle."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from tikhon import TikhonError
from tikhon.measures.margins import linear_margins, margins

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(4, (40,), generator=GENERATOR)


def linear(classes: int = 4):
    torch.manual_seed(0)
    return nn.Linear(6, classes).double()


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_linear_models_have_a_closed_form(norm) -> None:
    model = linear()
    found = margins(model, X, LABELS, norm)
    scores, weights = model(X).detach(), model.weight.detach()
    answers = scores.argmax(1)
    for sample, answer, distance in zip(scores, answers, found.distances, strict=True):
        gaps = [
            float((sample[answer] - sample[k]) / (weights[answer] - weights[k]).norm(p=2 if norm == "2" else 1))
            for k in range(4)
            if k != answer
        ]
        assert float(distance) == pytest.approx(min(gaps), rel=1e-5)
    torch.testing.assert_close(linear_margins(scores, weights, answers, norm), found.distances, rtol=1e-5, atol=0.0)
    assert torch.equal(found.right, answers == LABELS)


def test_linear_margins_are_negative_where_the_answer_is_wrong_and_infinite_where_nothing_helps() -> None:
    weights = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    scores = torch.tensor([[3.0, -3.0, 1.0], [-2.0, 2.0, -5.0]])
    found = linear_margins(scores, weights, torch.tensor([0, 0]))
    assert found.tolist() == [3.0, -2.0]
    assert linear_margins(scores[:, [0, 2]], weights[[0, 2]], torch.tensor([0, 0])).tolist() == [math.inf, math.inf]


class Circle(nn.Module):
    """The answer is 1 outside of the unit circle."""

    def forward(self, x):
        squares = x.square().sum(1)
        return torch.stack([torch.ones_like(squares), squares], dim=1)


def test_a_circle_is_as_far_as_it_is() -> None:
    directions = torch.randn(30, 2, generator=GENERATOR, dtype=torch.float64)
    radii = torch.linspace(0.2, 2.5, 30).double()
    x = radii[:, None] * directions / directions.norm(dim=1, keepdim=True)
    found = margins(Circle(), x, (radii > 1).long())
    torch.testing.assert_close(found.distances, (radii - 1).abs(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.examples.norm(dim=1), torch.ones(30).double(), rtol=1e-5, atol=0.0)
    assert bool(found.right.all())
    inf = margins(Circle(), torch.tensor([[0.1, 0.1]]).double(), torch.tensor([0]), norm="inf")
    assert inf.distances.item() == pytest.approx(0.5**0.5 - 0.1, rel=1e-5)


def test_no_grid_point_is_nearer_by_much_in_a_network() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3)).double()
    x = torch.randn(25, 2, generator=GENERATOR, dtype=torch.float64)
    model(x)
    state = {name: one.clone() for name, one in model.state_dict().items()}
    found = margins(model, x, torch.zeros(25, dtype=torch.int64))
    assert all(module.training for module in model)
    assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters())
    model.eval()
    answers = model(x).argmax(1)
    reached = found.distances.isfinite()
    assert reached.double().mean() > 0.9
    assert bool((model(found.examples).argmax(1) != answers)[reached].all())
    line = torch.linspace(-3.0, 3.0, 241).double()
    grid = torch.cartesian_prod(line, line)
    exact = torch.stack(
        [grid[model(one + grid).argmax(1) != answer].norm(dim=1).min() for one, answer in zip(x, answers, strict=True)]
    )
    assert ((found.distances - exact)[reached] > -(line[1] - line[0])).all()  # up to the grid
    assert (found.distances / exact)[reached].median() < 1.1


def test_valid_values_and_models_that_never_change() -> None:
    model = linear()
    box = (float(X.min()), float(X.max()))
    found = margins(model, X, LABELS, valid=box)
    assert box[0] <= found.examples.min() <= found.examples.max() <= box[1]
    assert bool((found.distances >= margins(model, X, LABELS).distances * (1 - 1e-6)).all())
    with torch.no_grad():
        model.weight.zero_()
    constant = margins(model, X, model(X).argmax(1), steps=3)
    assert bool(constant.distances.isinf().all())
    assert constant.accuracy_within(100.0) == 1.0


def test_accuracy_within_a_radius_and_its_drawing() -> None:
    model = linear()
    found = margins(model, X, LABELS)
    assert found.accuracy_within(0.0) == pytest.approx(float(found.right.double().mean()))
    half = found.accuracy_within(found.median)
    assert half == pytest.approx(found.accuracy_within(0.0) / 2, abs=0.03)
    axes = found.plot()
    x, y = axes.get_lines()[0].get_data()
    for radius, share in zip(list(x)[1:], list(y)[1:], strict=True):
        assert share == pytest.approx(found.accuracy_within(radius))
    plt.close(axes.figure)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match="scores"):
        margins(linear(1), X, LABELS)
    with pytest.raises(TikhonError, match="scores"):
        margins(linear(), X, LABELS[:3])
    with pytest.raises(TikhonError, match="floating-point"):
        margins(linear(), LABELS[:, None], LABELS)
    with pytest.raises(TikhonError, match="steps"):
        margins(linear(), X, LABELS, steps=0)
    with pytest.raises(TikhonError, match="candidates"):
        margins(linear(), X, LABELS, candidates=1)
