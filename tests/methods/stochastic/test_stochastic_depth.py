"""Stochastic depth: what is left out is not computed, the mean over draws is the block, and torchvision's formula."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.stochastic.stochastic_depth import linear_decay

INPUTS = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3


class Block(nn.Module):
    """x + f(x); counts how often it is computed."""

    def __init__(self, width=4, out=None):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(width, out or width), nn.BatchNorm1d(out or width), nn.Tanh())
        self.calls = 0

    def forward(self, x, scale=1.0):
        self.calls += 1
        f = scale * self.f(x)
        return x + f if f.shape == x.shape else f


def network(blocks=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(*[Block() for _ in range(blocks)], nn.Linear(4, 3)).double()


def attached(model, *methods, steps=100):
    recipe = tikhon.Recipe(*methods, seed=2)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, steps=steps)
    return recipe, optimizer


def test_a_block_that_is_left_out_is_not_computed_and_gets_no_gradient():
    model = network(4)
    recipe, optimizer = attached(model, tikhon.StochasticDepth(at="[0123]", p=0.8))
    recipe.loss(INPUTS, LABELS)  # a first look at every block
    computed = torch.zeros(4)
    for _ in range(400):
        for block in model[:4]:
            block.calls = 0
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS).backward()
        for block in model[:4]:
            assert (block.f[0].weight.grad is not None) == bool(block.calls)
        computed += torch.tensor([float(block.calls) for block in model[:4]])
        optimizer.step()
    rates = torch.tensor([0.2, 0.4, 0.6, 0.8])
    assert torch.tensor(linear_decay(4, 0.8)).allclose(rates)
    assert ((computed / 400 - (1 - rates)).abs() < 4 * (rates * (1 - rates) / 400).sqrt()).all()


@pytest.mark.parametrize("branch", [False, True])
def test_the_mean_of_the_output_over_the_draws_is_the_block(branch):
    """By chances of all eight draws; for a linear end of the network the mean loss would follow."""
    model = network()
    at = "[012].f" if branch else "[012]"
    method = tikhon.StochasticDepth(at=at, p=0.6, branch=branch)
    recipe, optimizer = attached(model, method)
    recipe.loss(INPUTS, LABELS)
    single = model[1].f if branch else model[1]
    plain = copy.deepcopy(network()[1].f if branch else network()[1])(INPUTS)
    seen = {}
    for _ in range(60):
        recipe.loss(INPUTS, LABELS)
        optimizer.step()
        seen[single.skipped.out] = single(INPUTS).detach()
    mean = 0.4 * seen[True] + 0.6 * seen[False]  # the second of three: p_2 = 2 / 3 * 0.6
    torch.testing.assert_close(mean, plain.detach())
    assert torch.equal(seen[True], torch.zeros_like(INPUTS) if branch else INPUTS)


def test_the_two_ways_to_name_a_block_are_the_same_network():
    losses = []
    for at, branch in (("[012]", False), ("[012].f", True)):
        recipe, optimizer = attached(network(), tikhon.StochasticDepth(at=at, p=0.7, branch=branch))
        found = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = recipe.loss(INPUTS, LABELS)
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        losses.append(torch.stack(found))
    torch.testing.assert_close(*losses)


def test_by_row_is_the_operation_of_torchvision():
    """noise = Bernoulli(1 - p) of shape (B, 1, ...), divided by 1 - p, times the branch."""
    model = nn.Sequential(Block().f, nn.Linear(4, 3)).double()
    recipe, _ = attached(model, tikhon.StochasticDepth(at="0", p=0.3, branch=True, mode="row"))
    recipe.loss(INPUTS, LABELS)
    torch.manual_seed(4)
    found = model[0](INPUTS)
    torch.manual_seed(4)
    noise = torch.empty(12, 1, dtype=torch.float64).bernoulli_(0.7).div_(0.7)
    plain = nn.Sequential(*model[0])(INPUTS)
    torch.testing.assert_close(found, plain * noise)
    assert 0 < int((found == 0).all(1).sum()) < 12


def test_by_row_keeps_whole_samples_of_blocks():
    model = network(1)
    recipe, _ = attached(model, tikhon.StochasticDepth(at="0", p=0.5, mode="row"))
    recipe.loss(INPUTS, LABELS)
    torch.manual_seed(0)
    found = model[0](INPUTS).detach()
    change = INPUTS + 2.0 * model[0].f(INPUTS).detach()
    kept = (found != INPUTS).any(1)
    torch.testing.assert_close(found[kept], change[kept])
    assert 0 < int(kept.sum()) < 12


def test_the_first_look_at_a_block_leaves_no_trace():
    model = network(1)
    recipe, _ = attached(model, tikhon.StochasticDepth(at="0", p=0.99))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    recipe.loss(INPUTS, LABELS)
    assert model[0].skipped.out
    assert model[0].calls == 1
    recipe.loss(INPUTS, LABELS)
    assert model[0].calls == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_second_pass_leaves_the_same_blocks_out():
    model = network(4)
    recipe, optimizer = attached(model, tikhon.StochasticDepth(at="[0123]"), tikhon.SAM(radius=1e-3))
    recipe.loss(INPUTS, LABELS)
    for _ in range(10):
        for block in model[:4]:
            block.calls = 0
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS).backward()
        optimizer.step()
        assert {block.calls for block in model[:4]} <= {0, 2}


def test_copies_evaluation_and_export_are_plain():
    model = network()
    recipe, optimizer = attached(model, tikhon.StochasticDepth(at="[012]", p=0.9))
    for _ in range(5):
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS).backward()
        optimizer.step()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied[0].f[0].weight.zero_()
        copied[0].f[0].bias.zero_()
    assert not torch.equal(copied.eval()(INPUTS), model.eval()(INPUTS))  # the copy computes with its own weights
    plain = network().eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(INPUTS), plain(INPUTS))
    assert torch.equal(recipe.export()(INPUTS), plain(INPUTS))
    assert "forward" not in vars(model[0])
    for one, other in itertools.pairwise([plain.train(), model.train()]):
        assert torch.equal(one(INPUTS), other(INPUTS))


def test_further_arguments_of_a_block_reach_it():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = Block(), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.block(x, scale=0.0))

    model = Scaled().double()
    recipe, _ = attached(model, tikhon.StochasticDepth(at="block", p=0.01))
    loss = recipe.loss(INPUTS, LABELS)
    torch.testing.assert_close(loss, F.cross_entropy(model.head(INPUTS), LABELS))


@pytest.mark.parametrize("p", [0.01, 0.99])
def test_a_block_that_changes_the_shape_is_refused_left_out_or_not(p):
    model = nn.Sequential(Block(4, 6), nn.Linear(6, 3)).double()
    recipe, _ = attached(model, tikhon.StochasticDepth(at="0", p=p))
    with pytest.raises(tikhon.TikhonError, match=r"0 makes a tensor \(12, 6\) of \(12, 4\): leave it out of at="):
        recipe.loss(INPUTS, LABELS)


def test_errors():
    for p in (1.0, -0.1):
        with pytest.raises(tikhon.TikhonError, match="p must be"):
            tikhon.StochasticDepth(at="0", p=p)
    with pytest.raises(tikhon.TikhonError, match="mode must be"):
        tikhon.StochasticDepth(at="0", mode="sample")
    with pytest.raises(tikhon.TikhonError, match="has no module '9'"):
        attached(network(), tikhon.StochasticDepth(at="9"))
    with pytest.raises(tikhon.TikhonError, match="forward method of 0 has been replaced"):
        attached(network(), tikhon.StochasticDepth(at="0"), tikhon.StochasticDepth(at="[01]").named("second"))
