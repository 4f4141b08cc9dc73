"""Adaptive gradient clipping: unit by unit in loops, the last layer, zeros, and what training does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tikhon
from tikhon.methods.dynamics.agc import adaptively_clipped, unitwise_norms


def by_units(weight, gradient, clipping, eps):
    """The paper's rule in a loop over rows; a vector is one unit."""
    if weight.ndim < 2:
        return by_units(weight.reshape(1, -1), gradient.reshape(1, -1), clipping, eps).reshape(weight.shape)
    rows = []
    for w, g in zip(weight, gradient, strict=True):
        bound = clipping * max(float(w.square().sum().sqrt()), eps)
        norm = float(g.square().sum().sqrt())
        rows.append(g * bound / norm if norm > bound else g)
    return torch.stack(rows)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3, 3), (7,), ()])
def test_every_unit_is_bounded_by_its_weights(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    gradient = torch.randn(shape, dtype=torch.float64) * torch.logspace(-3, 1, weight.numel()).reshape(shape)
    (found,) = adaptively_clipped([weight], [gradient], 0.1, 1e-3)
    torch.testing.assert_close(found, by_units(weight, gradient, 0.1, 1e-3))


def test_some_units_are_clipped_and_some_are_not():
    weight = torch.ones(2, 2)
    gradient = torch.tensor([[1.0, 0.0], [0.01, 0.0]])
    (found,) = adaptively_clipped([weight], [gradient], 0.1, 1e-3)
    torch.testing.assert_close(found, torch.tensor([[0.1 * 2**0.5, 0.0], [0.01, 0.0]]))


def test_zero_gradients_stay_and_zero_weights_can_move():
    (found,) = adaptively_clipped([torch.zeros(2, 2)], [torch.tensor([[0.0, 0.0], [0.0, 5.0]])], 0.1, 1e-3)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.0, 1e-4]]))


def test_half_precision_is_measured_in_float32():
    """256^2 * 4 has no place in float16."""
    (norm,) = unitwise_norms([torch.full((1, 4), 256.0, dtype=torch.float16)])
    assert norm.dtype == torch.float32
    assert float(norm) == 512.0


def gradients(**arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(tikhon.AdaptiveGradientClipping(**arguments))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recipe.attach(optimizer)
    recipe.loss(torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3).backward()
    raw = [one.grad.clone() for one in model.parameters()]
    optimizer.step()
    return raw, [one.grad for one in model.parameters()], [one.detach() for one in model.parameters()]


def test_the_recipe_clips_all_but_the_last_linear_layer():
    raw, found, weights = gradients(clipping=0.01)
    for one, other, weight in zip(raw[:2], found[:2], weights[:2], strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(other, by_units(weight, one, 0.01, 1e-3))
    assert all(torch.equal(one, other) for one, other in zip(raw[2:], found[2:], strict=True))


def test_the_last_layer_too_where_asked():
    raw, found, weights = gradients(clipping=0.01, head=True)
    for one, other, weight in zip(raw, found, weights, strict=True):
        torch.testing.assert_close(other, by_units(weight, one, 0.01, 1e-3))


@pytest.mark.parametrize("arguments", [{"clipping": 0.0}, {"eps": 0.0}])
def test_scalars_that_are_not_positive_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.AdaptiveGradientClipping(**arguments)
