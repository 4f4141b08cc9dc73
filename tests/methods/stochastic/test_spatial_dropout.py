"""Spatial dropout against torch's own modules, written into the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.stochastic.spatial_dropout import spatially_dropped

LABELS = torch.arange(12) % 3


@pytest.mark.parametrize(
    ("shape", "dropout"), [((4, 6, 9), F.dropout1d), ((4, 6, 3, 5), F.dropout2d), ((4, 6, 2, 3, 2), F.dropout3d)]
)
def test_a_number_is_torchs_dropout_of_channels_to_the_bit(shape, dropout):
    features = torch.randn(shape)
    torch.manual_seed(0)
    expected = dropout(features, 0.4)
    torch.manual_seed(0)
    found = spatially_dropped(features, 0.4)
    assert torch.equal(found, expected)
    assert not torch.equal(found, features)


def test_a_rate_in_a_tensor_drops_whole_channels():
    torch.manual_seed(0)
    found = spatially_dropped(torch.ones(100, 50, 3, 3), torch.tensor(0.25)).flatten(2)
    assert (found == found[..., :1]).all()
    dropped = found[..., 0] == 0
    torch.testing.assert_close(found[..., 0][~dropped], torch.full((int((~dropped).sum()),), 4 / 3))
    assert abs(dropped.double().mean() - 0.25) < 5 * (0.25 * 0.75 / 5000) ** 0.5


def network(dropout=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second, head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 8, 3), nn.Linear(8 * 4, 3)
    layers = [first, nn.ReLU(), dropout or nn.Identity(), second, nn.ReLU(), nn.Flatten(), head]
    return nn.Sequential(*layers).double()


def trained(model, *methods, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    recipe = tikhon.Recipe(*methods)
    if methods:
        recipe.prepare(model)
        recipe.attach(optimizer, steps=steps)
    inputs = torch.randn(12, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    for _ in range(steps):
        optimizer.zero_grad()
        (recipe.loss(inputs, LABELS) if methods else F.cross_entropy(model(inputs), LABELS)).backward()
        optimizer.step()
    return recipe, {name: value.clone() for name, value in model.state_dict().items()}


def test_it_is_dropout2d_written_into_the_model_to_the_bit():
    _, expected = trained(network(nn.Dropout2d(0.4)))
    recipe, found = trained(network(), tikhon.SpatialDropout(at="1", p=0.4))
    _, plain = trained(network())
    assert all(map(torch.equal, found.values(), expected.values()))
    assert not torch.equal(found["0.weight"], plain["0.weight"])
    exported, reference = recipe.export(), network()
    reference.load_state_dict(found)
    inputs = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    assert torch.equal(exported.train()(inputs), reference(inputs))


def test_errors():
    with pytest.raises(tikhon.TikhonError, match="p must be"):
        tikhon.SpatialDropout(at="1", p=1.5)
    with pytest.raises(tikhon.TikhonError, match="spatial_dropout: the model has no module '9'"):
        tikhon.Recipe(tikhon.SpatialDropout(at="9")).prepare(network())
    with pytest.raises(tikhon.TikhonError, match=r"not on \(12, 32\)"):
        trained(network(), tikhon.SpatialDropout(at="5"))
