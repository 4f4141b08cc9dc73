"""EMA: the closed form of the average, and what it leaves alone."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import tikhon
from tikhon.methods.dynamics.ema import moved_average

X = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def trained(model, decay, steps):
    """Train, and return the recipe and the weights after every step."""
    recipe = tikhon.Recipe(tikhon.EMA(decay))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recipe.attach(optimizer)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        optimizer.step()
        history.append({name: one.detach().clone() for name, one in model.named_parameters()})
    return recipe, history


def decays(decay, steps):
    """What the n-th step's weights (counted from 0) are averaged in with; the first is taken whole."""
    return [min(decay, (1 + n) / (10 + n)) for n in range(1, steps)]


def closed_form(history, name, decay):
    """sum_n (1 - d_n) prod_{m > n} d_m w_n."""
    ds = [0.0, *decays(decay, len(history))]
    total = 0.0
    for n, weights in enumerate(history):
        left = torch.tensor(ds[n + 1 :], dtype=torch.float64).prod()
        total = total + (1 - ds[n]) * left * weights[name]
    return total


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.999])
def test_average_is_the_closed_form(decay):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    recipe, history = trained(model, decay, steps=12)
    for name in ("weight", "bias"):
        expected = closed_form(history, name, decay)
        torch.testing.assert_close(recipe.methods["ema"].average.tensors[name], expected, rtol=1e-12, atol=1e-14)


def test_a_constant_decay_follows_the_powers():
    average, weights = torch.tensor([2.0]).double(), torch.tensor([1.0]).double()
    for n in range(1, 6):
        moved_average([average], [weights], 0.8)
        assert float(average) == pytest.approx(1.0 + 0.8**n, rel=1e-12)


def test_training_is_plain_and_deployment_has_the_average():
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    plain = nn.Linear(4, 3).double()
    plain.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    recipe, _ = trained(model, 0.99, steps=8)
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(X), Y).backward()
        optimizer.step()
    assert torch.equal(model.weight, plain.weight)
    average = recipe.methods["ema"].average.tensors["weight"].clone()
    with recipe.deployed() as deployed:
        assert torch.equal(deployed.weight, average)
    assert torch.equal(model.weight, plain.weight)
    assert torch.equal(recipe.export().weight, average)
    assert (average - plain.weight).abs().max() > 1e-3


def test_statistics_counters_and_spectral_vectors_are_not_averaged():
    torch.manual_seed(0)
    first = parametrizations.spectral_norm(nn.Linear(4, 6))
    model = nn.Sequential(first, nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    recipe, _ = trained(model, 0.9, steps=7)
    averaged = recipe.methods["ema"].average.tensors
    assert set(averaged) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    norm, vectors = model[1], model[0].parametrizations.weight[0]
    before = {name: one.clone() for name, one in model.named_buffers()}
    with recipe.deployed() as deployed:
        assert int(deployed[1].num_batches_tracked) == 7
        assert torch.equal(deployed[0].parametrizations.weight.original, averaged["0.weight"])
    assert int(norm.num_batches_tracked) == 7
    assert torch.equal(vectors._u, before["0.parametrizations.weight.0._u"])
    assert torch.equal(norm.running_mean, before["1.running_mean"])


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(tikhon.TikhonError, match="decay"):
        tikhon.EMA(1.1)
