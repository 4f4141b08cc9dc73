"""The model with other weights: what it answers, and that nothing of it has changed."""

from __future__ import annotations

import torch
from torch import nn

import tikhon
from tikhon.core.teacher import answer_with


def test_it_answers_as_a_copy_with_these_weights_would() -> None:
    torch.manual_seed(0)

    def network() -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    model, other = network(), network()
    other(torch.randn(8, 3))  # statistics of its own
    recipe = tikhon.Recipe(tikhon.L2())
    recipe.prepare(model)
    step = recipe._plan.entries[0].step
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(5, 3)
    random = torch.get_rng_state()
    found = answer_with(other.state_dict(), x, step)
    assert torch.equal(found, other.eval()(x))
    assert not found.requires_grad
    assert torch.equal(answer_with({}, x, step), model.eval()(x))
    assert torch.equal(torch.get_rng_state(), random)
    model.train()
    answer_with({}, x, step)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
