"""Tightness of interval bounds: corners of the box, bounds that are exact, and certificates against search."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from tikhon import TikhonError
from tikhon.measures.ibp_tightness import certified_accuracy, ibp_tightness


def network(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double()


def test_it_is_the_width_over_corners_by_the_width_of_the_bounds() -> None:
    model, x, radius = network(3, 5, 5, 2), torch.tensor([[0.3, -0.2, 0.5]]).double(), torch.tensor([1.0, 0.5, 0.2])
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3))).double()
    outputs = model(x + 1e-6 * radius * signs)  # small enough that no ReLU switches
    reached = (outputs.amax(0) - outputs.amin(0)) / 2e-6
    width, values = radius.double(), x[0]
    for layer in model:
        if isinstance(layer, nn.Linear):
            width, values = layer.weight.abs() @ width, layer(values)
        else:
            width, values = width * (values > 0), values.relu()
    torch.testing.assert_close(ibp_tightness(model, x, radius)[0], reached / width, rtol=1e-6, atol=0.0)
    assert (reached < width).all()


def test_bounds_are_exact_without_cancellation_and_vanish_with_it() -> None:
    model = network(4, 6, 6, 3)
    for layer in model[::2]:
        nn.init.uniform_(layer.weight, 0.1, 1.0)
        nn.init.ones_(layer.bias)
    x = torch.rand(5, 4).double()
    torch.testing.assert_close(ibp_tightness(model, x), torch.ones(5, 3).double())
    cancelling = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    cancelling[0].weight.data[:] = 1.0
    cancelling[1].weight.data[:] = torch.tensor([1.0, -1.0])
    assert ibp_tightness(cancelling, x[:, :1]).abs().max() < 1e-15


def test_an_output_that_does_not_move_counts_as_exact_and_modes_return() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2)).double()
    model[3].weight.data[:] = 0.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(ibp_tightness(model, torch.rand(3, 2).double()), torch.ones(3, 2).double())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters())


def test_nothing_is_certified_that_a_search_can_change() -> None:
    model = network(2, 6, 3, seed=3)
    x = torch.rand(200, 2).double()
    labels = model(x).argmax(1)
    labels[::10] = (labels[::10] + 1) % 3
    steps = torch.linspace(-1.0, 1.0, 21).double()
    grid = torch.cartesian_prod(steps, steps)
    shares = []
    for eps in (0.0, 0.02, 0.1, 0.5):
        found = certified_accuracy(model, x, labels, eps, valid=(0.0, 1.0))
        attacked = (x[:, None] + eps * grid).clamp(0.0, 1.0)
        robust = (model(attacked.flatten(0, 1)).argmax(1).reshape(200, -1) == labels[:, None]).all(1)
        assert found <= robust.double().mean() + 1e-12
        shares.append(found)
    assert shares[0] == pytest.approx(0.9)
    assert shares[0] > shares[1] > shares[3]
    assert shares[1] > 0.7


def test_what_does_not_fit_is_refused() -> None:
    model, x = network(2, 3, 2), torch.rand(4, 2).double()
    with pytest.raises(TikhonError, match="at least 0 in every entry"):
        ibp_tightness(model, x, torch.tensor([1.0, -1.0]))
    with pytest.raises(TikhonError, match=r"\(B, K\)"):
        ibp_tightness(nn.Flatten(0), x)
    with pytest.raises(TikhonError, match="eps must be at least 0"):
        certified_accuracy(model, x, torch.zeros(4, dtype=torch.int64), -0.1)
