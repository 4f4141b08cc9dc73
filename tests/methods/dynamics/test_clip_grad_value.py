"""Clipping of values: every entry by itself, once for the whole step, and before noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tikhon

X = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def gradients(*methods, micro=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(*methods)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    recipe.attach(optimizer)
    for rows in torch.arange(16).chunk(micro):
        recipe.loss(X[rows], Y[rows], total=16.0).backward()
    optimizer.step()
    return [one.grad for one in model.parameters()]


def test_every_entry_is_cut_by_itself():
    for found, plain in zip(gradients(tikhon.ClipGradValue(0.02)), gradients(), strict=True):
        assert plain.abs().max() > 0.02
        assert torch.equal(found, plain.clamp(-0.02, 0.02))


def test_the_gradient_of_the_whole_step_is_cut():
    for found, whole in zip(
        gradients(tikhon.ClipGradValue(0.02), micro=4), gradients(tikhon.ClipGradValue(0.02)), strict=True
    ):
        torch.testing.assert_close(found, whole)


def test_only_where_it_is_told_to():
    found, plain = gradients(tikhon.ClipGradValue(0.001, where="2.weight")), gradients()
    assert [torch.equal(one, other) for one, other in zip(found, plain, strict=True)] == [True, True, False, True]


def test_a_negative_bound_is_refused():
    with pytest.raises(tikhon.TikhonError, match="max_value"):
        tikhon.ClipGradValue(-1.0)
