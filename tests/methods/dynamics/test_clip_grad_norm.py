"""Clipping of norms: lengths and directions by hand, over micro-batches and penalties, after the caller's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

X = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def moved(*methods, micro=1):
    """What the weights moved by in one step of gradient descent with learning rate 1, in one vector."""
    model = network()
    recipe = tikhon.Recipe(*methods)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    recipe.attach(optimizer)
    before = torch.cat([one.detach().flatten().clone() for one in model.parameters()])
    for rows in torch.arange(16).chunk(micro):
        recipe.loss(X[rows], Y[rows], total=16.0).backward()
    optimizer.step()
    return before - torch.cat([one.detach().flatten() for one in model.parameters()])


def test_a_long_gradient_keeps_its_direction_and_gets_the_bound():
    plain = moved()
    assert plain.norm() > 0.1
    # torch divides by the norm plus 1e-6
    torch.testing.assert_close(moved(tikhon.ClipGradNorm(0.1)), 0.1 * plain / plain.norm(), rtol=1e-4, atol=0.0)


def test_a_short_gradient_stays():
    assert torch.equal(moved(tikhon.ClipGradNorm(100.0)), moved())


def test_the_whole_gradient_of_the_step_is_clipped_not_that_of_each_micro_batch():
    torch.testing.assert_close(moved(tikhon.ClipGradNorm(0.1), micro=4), moved(tikhon.ClipGradNorm(0.1)))


def test_penalties_are_clipped_with_the_task():
    assert moved(tikhon.L2(10.0)).norm() > 1.0
    assert float(moved(tikhon.L2(10.0), tikhon.ClipGradNorm(0.1)).norm()) == pytest.approx(0.1, rel=1e-4)


def test_only_selected_parameters_count_and_are_clipped():
    plain, found = moved(), moved(tikhon.ClipGradNorm(0.01, where="0"))
    first = 4 * 8 + 8
    assert float(found[:first].norm()) == pytest.approx(0.01, rel=1e-3)
    assert torch.equal(found[first:], plain[first:])


def test_parameters_without_a_gradient_do_not_matter():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()

        def forward(self, x):
            return self.used(x)

    model = Idle()
    recipe = tikhon.Recipe(tikhon.ClipGradNorm(0.01))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    recipe.attach(optimizer)
    recipe.loss(X, Y).backward()
    optimizer.step()
    assert model.idle.weight.grad is None
    assert float(torch.cat([model.used.weight.grad.flatten(), model.used.bias.grad]).norm()) == pytest.approx(
        0.01, rel=1e-3
    )
    assert F.cross_entropy(model(X), Y).isfinite()


def test_a_negative_bound_is_refused():
    with pytest.raises(tikhon.TikhonError, match="max_norm"):
        tikhon.ClipGradNorm(-1.0)
