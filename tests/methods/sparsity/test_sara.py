"""SaRA: what trains and what stays to the bit, the second selection, the nuclear norm, and saving."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import tikhon
from tikhon import TikhonError
from tikhon.methods.sparsity.sara import magnitude_below, nuclear_norm


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


INPUTS, LABELS = drawn(24, 5), torch.arange(24) % 4
STEPS = 20


def ready(momentum=0.9, steps=STEPS, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    recipe = tikhon.Recipe(tikhon.SaRA(**arguments), seed=3)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=momentum, weight_decay=0.1)
    recipe.attach(optimizer, steps=steps)
    return recipe, model, optimizer


def train(recipe, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS).backward()
        optimizer.step()


def vector(model):
    return torch.cat([one.detach().flatten() for one in model.parameters()])


def test_the_nuclear_norm_and_its_gradient() -> None:
    weight = drawn(6, 2, 2).requires_grad_()
    u, s, vt = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    found = nuclear_norm(weight)
    torch.testing.assert_close(found.detach(), s.sum())
    torch.testing.assert_close(torch.autograd.grad(found, weight)[0].flatten(1), u @ vt)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_as_many_are_below_as_asked_for(share) -> None:
    weights = [drawn(4, 3), drawn(8)]
    below = sum(int((one.abs() < magnitude_below(weights, share)).sum()) for one in weights)
    assert below == share * 20
    assert magnitude_below(weights, 1.0) == math.inf


def test_only_the_smallest_train_and_the_others_stay_to_the_bit() -> None:
    recipe, model, optimizer = ready(share=0.2, reselect=None)
    before = vector(model).clone()
    small = before.abs() < before.abs().sort().values[round(0.2 * len(before))]
    loss = recipe.loss(INPUTS, LABELS).item()
    train(recipe, optimizer, STEPS)
    after = vector(recipe.export())
    assert torch.equal(after[~small], before[~small])
    assert (after[small] != before[small]).all()
    assert recipe._objective.values["task"] < loss


def test_half_way_what_has_outgrown_the_threshold_stops_where_it_is() -> None:
    recipe, model, optimizer = ready(share=0.3)
    threshold = recipe.methods["sara"].threshold
    small = vector(model).abs() < threshold
    train(recipe, optimizer, STEPS // 2)
    half = vector(model).clone()
    train(recipe, optimizer, STEPS - STEPS // 2)
    after = vector(model)
    grown = small & (half.abs() >= threshold)
    still = small & (half.abs() < threshold)
    assert grown.any()
    assert still.any()
    assert torch.equal(after[~still], half[~still])
    assert (after[still] != half[still]).all()


def test_it_goes_on_where_it_was_saved() -> None:
    ends = []
    for stopped in (None, 8, 15):  # before and after the second selection
        recipe, model, optimizer = ready(share=0.3)
        if stopped is not None:
            train(recipe, optimizer, stopped)
            saved = copy.deepcopy((recipe.state_dict(), model.state_dict(), optimizer.state_dict()))
            recipe, model, optimizer = ready(share=0.3)
            model.load_state_dict(saved[1])
            optimizer.load_state_dict(saved[2])
            recipe.load_state_dict(saved[0])
        train(recipe, optimizer, STEPS - (stopped or 0))
        ends.append(vector(model))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_a_matrix_of_what_trains_has_a_smaller_nuclear_norm_under_the_penalty() -> None:
    def norm(strength):
        recipe, model, optimizer = ready(share=0.5, strength=strength, reselect=None, steps=100)
        masks = recipe.methods["sara"].trained.tensors
        train(recipe, optimizer, 100)
        return sum(nuclear_norm(model.get_parameter(name) * masks[name]).item() for name in ("0.weight", "2.weight"))

    assert norm(0.05) < 0.8 * norm(0.0)


def test_everything_outside_the_selection_is_frozen_until_export() -> None:
    recipe, model, optimizer = ready(share=0.5, where="2")
    before = copy.deepcopy(model[0].state_dict())
    assert not model[0].weight.requires_grad
    train(recipe, optimizer, 3)
    assert all(torch.equal(one, before[name]) for name, one in model[0].state_dict().items())
    assert all(one.requires_grad for one in recipe.export().parameters())


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ({"threshold": -1.0}, {"share": 1.5}, {"reselect": -0.1}):
        with pytest.raises(TikhonError, match=next(iter(wrong))):
            tikhon.SaRA(**wrong)
    with pytest.raises(TikhonError, match="no weight is below"):
        ready(threshold=0.0)
    with pytest.raises(TikhonError, match="sara goes by the progress of training"):
        ready(share=0.2, steps=None)
    ready(share=0.2, reselect=None, steps=None)


def test_weights_that_are_no_longer_finite_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    recipe = tikhon.Recipe(tikhon.SaRA(share=0.5))
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1), steps=2)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.raises(tikhon.Diverged, match="sara cannot be computed at step 0"):
        recipe.loss(torch.ones(2, 4), torch.tensor([0, 1]))
