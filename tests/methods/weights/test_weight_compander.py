"""Weight compander: the function and its inverse, surgery that changes nothing, and the bound that training obeys."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import tikhon
from tikhon.methods.weights.weight_compander import Companded, companded, expanded

DOUBLE = torch.float64


def network(dtype: torch.dtype = DOUBLE) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model


def batch(dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(32, 4, dtype=dtype, generator=generator), torch.randint(3, (32,), generator=generator)


def test_derivative_in_closed_form() -> None:
    v = torch.linspace(-20.0, 20.0, 41, dtype=DOUBLE, requires_grad=True)
    companded(v, 1.3, 0.4).sum().backward()
    torch.testing.assert_close(v.grad, 1.3 * 0.4 / (0.4**2 + v.detach() ** 2))


def test_inverse() -> None:
    w = torch.linspace(-1.5, 1.5, 31, dtype=DOUBLE)
    torch.testing.assert_close(companded(expanded(w, 1.0, 0.25), 1.0, 0.25), w, rtol=1e-12, atol=1e-15)
    assert companded(torch.zeros(1), 1.0, 0.5) == 0.0


@pytest.mark.parametrize("function", [companded, expanded])
def test_gradcheck(function: object) -> None:
    inputs = [torch.tensor(values, dtype=DOUBLE, requires_grad=True) for values in ([-0.5, 0.0, 0.9], [1.1], [0.3])]
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("learned", [True, False])
def test_prepare_does_not_change_what_the_network_computes(dtype: torch.dtype, close: float, learned: bool) -> None:
    model, (inputs, _) = network(dtype), batch(dtype)
    before = model(inputs)
    prepared = tikhon.Recipe(tikhon.WeightCompander(learned=learned)).prepare(model)
    torch.testing.assert_close(prepared(inputs), before, rtol=0.0, atol=close)
    added = [name for name, _ in prepared.named_parameters() if "log_" in name]
    assert len(added) == (4 if learned else 0)


def test_one_step_follows_the_chain_rule() -> None:
    model, (inputs, target) = network(), batch()
    plain = copy.deepcopy(model)
    nn.functional.cross_entropy(plain(inputs), target).backward()
    gradient, w = plain[0].weight.grad, plain[0].weight.detach()
    recipe = tikhon.Recipe(tikhon.WeightCompander(a=1.2, b=0.5, learned=True))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    recipe.loss(inputs, target).backward()
    optimizer.step()
    v = 0.5 * torch.tan(w / 1.2)
    slope_v = 1.2 * 0.5 / (0.25 + v**2)
    slope_log_a = w  # dw / d log a = a arctan(v / b)
    slope_log_b = -slope_v * v  # dw / d log b = -a b v / (b^2 + v^2)
    a = 1.2 * math.exp(-0.1 * float((gradient * slope_log_a).sum()))
    b = 0.5 * math.exp(-0.1 * float((gradient * slope_log_b).sum()))
    expected = a * torch.arctan((v - 0.1 * gradient * slope_v) / b)
    torch.testing.assert_close(model[0].weight.detach(), expected, rtol=1e-10, atol=1e-12)


def test_weights_stay_below_the_bound() -> None:
    inputs, target = batch()

    def trained(*methods: tikhon.Method) -> Tensor:
        model = network()
        recipe = tikhon.Recipe(*methods)
        recipe.prepare(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        recipe.attach(optimizer)
        for _ in range(400):
            optimizer.zero_grad()
            recipe.loss(inputs, target).backward()
            optimizer.step()
        exported = recipe.export()
        return torch.cat([exported[0].weight.detach().flatten(), exported[2].weight.detach().flatten()])

    bound = math.pi / 2
    assert trained().abs().max() > bound
    assert trained(tikhon.WeightCompander(a=1.0, b=0.5, learned=False)).abs().max() < bound


def test_export_merges() -> None:
    model, (inputs, target) = network(), batch()
    names = model.state_dict().keys()
    recipe = tikhon.Recipe(tikhon.WeightCompander())
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recipe.attach(optimizer)
    recipe.loss(inputs, target).backward()
    optimizer.step()
    trained = model(inputs)
    exported = recipe.export()
    assert exported.state_dict().keys() == names
    assert type(exported[0]) is nn.Linear
    assert not any(isinstance(module, Companded) for module in exported.modules())
    torch.testing.assert_close(exported(inputs), trained, rtol=0.0, atol=0.0)


def test_recurrent_and_attention_weights_are_reached() -> None:
    inputs = torch.ones(2, 3, 4)
    for module in (nn.LSTM(4, 4), nn.MultiheadAttention(4, 2)):
        tikhon.Recipe(tikhon.WeightCompander(a=2.0)).prepare(module)
        output = module(inputs)[0] if isinstance(module, nn.LSTM) else module(inputs, inputs, inputs)[0]
        output.square().sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_large_weights_are_refused_and_nothing_is_changed() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = -2.0
    with pytest.raises(tikhon.TikhonError, match=r"2\.weight has one of 2: choose a above 1\.273"):
        tikhon.Recipe(tikhon.WeightCompander()).prepare(model)
    assert not nn.utils.parametrize.is_parametrized(model[0])
    tikhon.Recipe(tikhon.WeightCompander(a=1.3)).prepare(model)


def test_tied_and_parametrised_weights_are_refused() -> None:
    tied = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    tied[1].weight = tied[0].weight
    with pytest.raises(tikhon.TikhonError, match=r"0\.weight and 1\.weight are one tied weight"):
        tikhon.Recipe(tikhon.WeightCompander(a=5.0)).prepare(tied)
    assert not nn.utils.parametrize.is_parametrized(tied[0])
    normed = nn.Sequential(nn.Linear(3, 3), weight_norm(nn.Linear(3, 3)))
    with pytest.raises(tikhon.TikhonError, match=r"1\.weight is parametrised already \(_WeightNorm\)"):
        tikhon.Recipe(tikhon.WeightCompander()).prepare(normed)
    tikhon.Recipe(tikhon.WeightCompander(where="0")).prepare(normed)


def test_a_recipe_takes_one_and_wrong_arguments_none() -> None:
    with pytest.raises(tikhon.TikhonError, match="cannot run together"):
        tikhon.Recipe(tikhon.WeightCompander(), tikhon.WeightCompander().named("second"))
    with pytest.raises(tikhon.TikhonError, match="b must be"):
        tikhon.WeightCompander(b=0.0)
    with pytest.raises(tikhon.TikhonError, match="not a schedule"):
        tikhon.WeightCompander(a=tikhon.linear(1.0, 2.0))
