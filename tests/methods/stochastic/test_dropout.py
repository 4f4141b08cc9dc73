"""Dropout against nn.Dropout written into the model, and the exact expectation over all masks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

INPUTS = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3


def network(*dropouts):
    """A multi-layer perceptron, with these dropouts after its activations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second, head = nn.Linear(4, 10), nn.Linear(10, 8), nn.Linear(8, 3)
    one, other = dropouts or (nn.Identity(), nn.Identity())
    return nn.Sequential(first, nn.Tanh(), one, second, nn.Tanh(), other, head).double()


def trained(model, *methods, steps=4):
    """What `recipe.loss` makes of a model; without methods, the loop that everybody writes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    recipe = tikhon.Recipe(*methods)
    if methods:
        recipe.prepare(model)
        recipe.attach(optimizer, steps=steps)
    torch.manual_seed(3)
    for _ in range(steps):
        optimizer.zero_grad()
        (recipe.loss(INPUTS, LABELS) if methods else F.cross_entropy(model(INPUTS), LABELS)).backward()
        optimizer.step()
    return recipe, model.state_dict()


@pytest.mark.parametrize(
    ("at", "written"),
    [
        (None, (nn.Identity(), nn.Dropout(0.4))),
        ("4", (nn.Identity(), nn.Dropout(0.4))),
        ("1", (nn.Dropout(0.4), nn.Identity())),
        ("[14]", (nn.Dropout(0.4), nn.Dropout(0.4))),
    ],
)
def test_it_is_dropout_written_into_the_model_to_the_bit(at, written):
    _, expected = trained(network(*written))
    _, found = trained(network(), tikhon.Dropout(p=0.4, at=at))
    _, plain = trained(network())
    assert all(map(torch.equal, found.values(), expected.values()))
    assert not torch.equal(found["0.weight"], plain["0.weight"])


def test_the_mean_loss_is_the_expectation_over_all_masks():
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 3)).double()
    recipe, _ = trained(model, tikhon.Dropout(p=0.25), steps=1)
    weight, bias = (one.detach() for one in model[1].parameters())
    expected = torch.zeros((), dtype=torch.float64)
    for kept in itertools.product([0.0, 1.0], repeat=4):
        chance = 0.75 ** sum(kept) * 0.25 ** (4 - sum(kept))
        expected += chance * F.cross_entropy(F.linear(INPUTS * torch.tensor(kept) / 0.75, weight, bias), LABELS)
    losses = torch.stack([recipe.loss(INPUTS, LABELS).detach() for _ in range(2000)])
    assert abs(F.cross_entropy(F.linear(INPUTS, weight, bias), LABELS) - expected) > 0.02
    assert abs(losses.mean() - expected) < 4 * losses.std() / 2000**0.5


def test_a_schedule_moves_the_share_of_features_dropped():
    model = nn.Sequential(nn.Identity(), nn.Linear(2000, 3))
    seen = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(float((args[0] == 0).float().mean())))
    recipe = tikhon.Recipe(tikhon.Dropout(p=tikhon.linear(0.0, 1.0)))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, steps=5)
    for _ in range(6):
        recipe.loss(torch.ones(4, 2000), torch.arange(4) % 3).backward()
        optimizer.step()
    assert seen == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], abs=0.03)


def test_a_second_pass_repeats_the_masks():
    model = network()
    recipe, _ = trained(model, tikhon.Dropout(p=0.5), tikhon.SAM(radius=1e-3), steps=1)
    seen = []
    model[6].register_forward_hook(lambda module, args, output: seen.append(args[0].detach() == 0))
    recipe.loss(INPUTS, LABELS).backward()
    assert len(seen) == 2
    assert 0.3 < seen[0].double().mean() < 0.7
    assert torch.equal(seen[0], seen[1])


def test_evaluation_and_export_are_plain():
    model = network()
    recipe, state = trained(model, tikhon.Dropout())
    plain = network()
    plain.load_state_dict(state)
    assert not torch.equal(model(INPUTS), plain(INPUTS))
    assert torch.equal(model.eval()(INPUTS), plain(INPUTS))
    assert torch.equal(recipe.export().train()(INPUTS), plain(INPUTS))


def test_errors():
    for arguments in ({"p": 1.5}, {"p": -0.1}, {"p": tikhon.linear(0.0, 2.0)}):
        with pytest.raises(tikhon.TikhonError, match="p must be"):
            tikhon.Dropout(**arguments)
    with pytest.raises(tikhon.TikhonError, match="dropout: the model has no module '7'"):
        tikhon.Recipe(tikhon.Dropout(at="7")).prepare(network())
    with pytest.raises(tikhon.TikhonError, match=r"dropout found no nn\.Linear"):
        tikhon.Recipe(tikhon.Dropout()).prepare(nn.Sequential(nn.Conv1d(1, 1, 1)))
