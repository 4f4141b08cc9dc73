"""Attacks against closed forms: linear losses, and quadratics whose worst point in a ball is known."""

from __future__ import annotations

import pytest
import torch

from tikhon import TikhonError
from tikhon.math.attacks import check_attack, projected_ascent, steepest, within

X = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SLOPE = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def linear(x):
    return (SLOPE * x).flatten(1).sum(1)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_linear_loss_is_attacked_to_the_corner_or_along_the_slope(steps):
    start = torch.zeros_like(X)
    found = projected_ascent(linear, X, start, 0.3, 0.3, steps, "inf")
    torch.testing.assert_close(found, X + 0.3 * SLOPE.sign())
    found = projected_ascent(linear, X, start, 0.3, 0.3, steps, "2")
    torch.testing.assert_close(found, X + 0.3 * SLOPE / SLOPE.flatten(1).norm(dim=1)[:, None, None])


def test_small_steps_add_up_until_the_radius():
    found = projected_ascent(linear, X, torch.zeros_like(X), 0.3, 0.05, 4, "inf")
    torch.testing.assert_close(found, X + 0.2 * SLOPE.sign())


def test_many_steps_find_the_worst_point_of_a_ball():
    """max |x - c|^2 over the ball around x0 is on the ray from c through x0."""
    centre = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = projected_ascent(
        lambda x: (x - centre).square().flatten(1).sum(1), X, 0.1 * torch.ones_like(X), 0.5, 0.1, 200, "2"
    )
    away = (X - centre) / (X - centre).flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(found, X + 0.5 * away, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_neither_radius_nor_valid_values_are_left(norm):
    start = 10.0 * torch.ones_like(X)
    images = X.sigmoid()
    found = projected_ascent(linear, images, start, 0.4, 0.3, 5, norm, (0.0, 1.0))
    change = (found - images).flatten(1)
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    length = change.abs().amax(1) if norm == "inf" else change.norm(dim=1)
    assert length.max() <= 0.4 + 1e-12
    assert linear(found).sum() > linear(images).sum()


def test_flat_and_tiny_gradients_are_safe():
    gradient = torch.tensor([[0.0, 0.0], [3e-30, 4e-30]])
    torch.testing.assert_close(steepest(gradient, "2"), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    assert torch.equal(within(torch.zeros(2, 3), 0.1, "2"), torch.zeros(2, 3))


def test_no_graph_and_no_gradient_is_left_behind():
    weight = torch.ones(2, requires_grad=True)
    found = projected_ascent(lambda x: (x * weight).sum(1), torch.zeros(3, 2), torch.zeros(3, 2), 0.1, 0.1, 2)
    assert not found.requires_grad
    assert weight.grad is None
    with torch.no_grad():  # the search switches gradients on for itself
        again = projected_ascent(lambda x: (x * weight).sum(1), torch.zeros(3, 2), torch.zeros(3, 2), 0.1, 0.1, 2)
    assert torch.equal(found, again)


@pytest.mark.parametrize("wrong", [(0, "inf", None), (True, "inf", None), (1, "1", None), (1, "2", (1.0, 0.0))])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(TikhonError):
        check_attack(*wrong)
