"""DropConnect: masks of weights by an independent layer, the expectation over all masks, and penalties beside it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

INPUTS = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3


class Masked(nn.Linear):
    """A linear layer that drops its weights, as one writes it by hand."""

    p = 0.4

    def forward(self, inputs):
        return F.linear(inputs, F.dropout(self.weight, self.p, self.training), self.bias)


def network(kind=nn.Linear):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(kind(4, 10), nn.Tanh(), kind(10, 3)).double()


def attached(model, *methods, **options):
    recipe = tikhon.Recipe(*methods, **options)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    recipe.attach(optimizer, steps=6)
    return recipe, optimizer


def test_it_is_a_layer_written_by_hand_to_the_bit():
    expected = network(Masked)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.5, momentum=0.9)
    torch.manual_seed(3)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(expected(INPUTS), LABELS).backward()
        optimizer.step()
    model = network()
    recipe, optimizer = attached(model, tikhon.DropConnect(p=0.4))
    torch.manual_seed(3)
    for _ in range(4):
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS).backward()
        optimizer.step()
    found = recipe.export().state_dict()  # in train mode: what is merged are the trained weights all the same
    assert found.keys() == expected.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert not torch.equal(found["0.weight"], network()[0].weight)


def test_the_mean_loss_is_the_expectation_over_all_masks():
    model = nn.Sequential(nn.Linear(2, 2, bias=False)).double()
    weight = model[0].weight.detach().clone()
    recipe, _ = attached(model, tikhon.DropConnect(p=0.3))
    inputs, labels = INPUTS[:, :2], LABELS % 2
    expected = torch.zeros((), dtype=torch.float64)
    for kept in itertools.product([0.0, 1.0], repeat=4):
        chance = 0.7 ** sum(kept) * 0.3 ** (4 - sum(kept))
        masked = weight * torch.tensor(kept, dtype=torch.float64).reshape(2, 2) / 0.7
        expected += chance * F.cross_entropy(inputs @ masked.T, labels)
    torch.manual_seed(0)
    losses = torch.stack([recipe.loss(inputs, labels).detach() for _ in range(3000)])
    assert abs(F.cross_entropy(inputs @ weight.T, labels) - expected) > 6 * losses.std() / 3000**0.5
    assert abs(losses.mean() - expected) < 4 * losses.std() / 3000**0.5


def test_a_weight_that_is_used_twice_has_one_mask_a_pass():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)

        def forward(self, inputs):
            self.seen = self.layer.weight, self.layer.weight
            return self.layer(inputs)

    model = Twice().double()
    recipe, _ = attached(model, tikhon.DropConnect())
    recipe.loss(INPUTS, LABELS)
    first = model.seen[0].detach()
    assert torch.equal(first, model.seen[1])
    assert 0 < int((first == 0).sum()) < 16
    recipe.loss(INPUTS, LABELS)
    assert not torch.equal(model.seen[0] == 0, first == 0)


def test_evaluation_uses_the_trained_weights():
    model = network()
    recipe, _ = attached(model, tikhon.DropConnect())
    recipe.loss(INPUTS, LABELS)
    assert not torch.equal(model(INPUTS), network()(INPUTS))
    assert torch.equal(model.eval()(INPUTS), network()(INPUTS))
    assert torch.equal(recipe.loss(INPUTS, LABELS), F.cross_entropy(network()(INPUTS), LABELS))


def test_penalties_see_the_trained_weights_and_draw_no_masks():
    results = []
    for penalties in ([], [tikhon.L2(strength=0.1)]):
        model = network()
        recipe, _ = attached(model, tikhon.DropConnect(), *penalties)
        torch.manual_seed(5)
        loss = recipe.loss(INPUTS, LABELS)
        results.append((loss.detach(), torch.get_rng_state()))
    (plain, state), (penalised, after) = results
    weights = [network()[0].weight, network()[2].weight]
    expected = 0.1 * 0.5 * sum(weight.square().sum() for weight in weights)
    torch.testing.assert_close(penalised - plain, expected.detach())
    assert torch.equal(state, after)


def test_only_what_is_selected_is_dropped_and_by_its_schedule():
    model = network()
    shares = []
    recipe, optimizer = attached(model, tikhon.DropConnect(p=tikhon.linear(0.0, 1.0), where="0"))
    assert not hasattr(model[2], "parametrizations")
    for _ in range(7):
        recipe.loss(INPUTS, LABELS)
        shares.append(float((model[0].weight == 0).double().mean()))
        optimizer.step()
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0], abs=0.3)


def test_errors():
    with pytest.raises(tikhon.TikhonError, match="p must be"):
        tikhon.DropConnect(p=1.1)
    tied = network()
    tied.append(nn.Linear(4, 10))
    tied[3].weight = tied[0].weight
    with pytest.raises(tikhon.TikhonError, match="tied"):
        attached(tied, tikhon.DropConnect())
    with pytest.raises(tikhon.TikhonError, match="cannot run together"):
        tikhon.Recipe(tikhon.DropConnect(), tikhon.WeightCompander())
