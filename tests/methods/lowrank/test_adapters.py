"""PiSSA and SORSA: Eckart-Young, a start that changes nothing, what trains and what does not, merging, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import tikhon
from tikhon import TikhonError
from tikhon.core.adapters import Adapter
from tikhon.methods.lowrank.pissa import difference_lora, pissa_factors
from tikhon.methods.lowrank.sorsa import nonorthonormality, sorsa_factors


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.Flatten(), nn.ReLU(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 4)]
    return nn.Sequential(*layers).double()


INPUTS, LABELS = drawn(16, 1, 6, 6), torch.arange(16) % 4


def trained(method, steps=20, rate=0.5):
    model = network()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    recipe.attach(optimizer)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = recipe.loss(INPUTS, LABELS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return recipe, model, losses


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_the_product_is_the_best_approximation(scale) -> None:
    weight = drawn(7, 5)
    a, b = pissa_factors(weight, 2, scale)
    singular = torch.linalg.svdvals(weight)
    residual = weight - scale * (b @ a)
    assert torch.linalg.matrix_norm(residual).item() == pytest.approx(singular[2:].norm().item())
    a, s, b = sorsa_factors(weight, 2)
    torch.testing.assert_close(weight - (b * s) @ a, residual)


STARTS = [tikhon.PiSSA(3), tikhon.PiSSA(3, alpha=12.0), tikhon.PiSSA(3, iterations=1), tikhon.SORSA(3, alpha=6.0)]


@pytest.mark.parametrize("method", STARTS)
def test_nothing_changes_at_the_start(method) -> None:
    model = network()
    expected = model(INPUTS)
    tikhon.Recipe(method).prepare(model)
    torch.testing.assert_close(model(INPUTS), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", [tikhon.PiSSA(3, alpha=6.0), tikhon.SORSA(3)])
@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 3, 7)])
def test_a_layer_computes_with_its_factors_what_it_would_with_its_weight(method, shape, monkeypatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5)).double()
    tikhon.Recipe(method).prepare(model)
    layer, x = copy.deepcopy(model)[0], drawn(*shape).requires_grad_()
    leaf = layer.parametrizations.weight.original
    with torch.no_grad():
        leaf.add_(drawn(*leaf.shape))
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    gradients = torch.autograd.grad(expected.square().sum(), (leaf, x))
    monkeypatch.setattr(Adapter, "forward", None)  # the weight itself is never made
    found = layer(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), (leaf, x)), gradients)


def test_a_randomised_start_is_the_same_each_time_and_nearer_to_the_exact_one_the_more_iterations() -> None:
    def residual(iterations):
        torch.manual_seed(0 if iterations is None else iterations)  # which no draw may follow
        model = nn.Sequential(nn.Linear(60, 40)).double()
        with torch.no_grad():
            model[0].weight.copy_(drawn(40, 60))
        tikhon.Recipe(tikhon.PiSSA(3, iterations=iterations)).prepare(model)
        return model[0].parametrizations.weight[0].residual

    exact, few, more = residual(None), residual(1), residual(30)
    torch.manual_seed(9)
    torch.testing.assert_close(residual(1), few, rtol=0.0, atol=0.0)
    assert exact.norm() < more.norm() < few.norm() < drawn(40, 60).norm()
    assert (more - exact).norm() < 0.1 * (few - exact).norm()


def test_a_weight_that_somebody_else_changes_too_is_used_as_it_is() -> None:
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2.0 * weight

    model = nn.Sequential(nn.Linear(7, 5, bias=False)).double()
    tikhon.Recipe(tikhon.PiSSA(3)).prepare(model)
    x = drawn(4, 7)
    expected = 2.0 * model(x)
    parametrize.register_parametrization(model[0], "weight", Doubled())
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("kind", [tikhon.PiSSA, tikhon.SORSA])
def test_only_factors_train_and_export_merges(kind) -> None:
    before = network().state_dict()
    recipe, model, losses = trained(kind(3))
    assert losses[-1] < 0.9 * losses[0]
    model.eval()
    outputs = model(INPUTS)
    exported = recipe.export()
    assert type(exported[3]) is nn.Linear
    torch.testing.assert_close(exported(INPUTS), outputs, rtol=1e-12, atol=1e-12)
    after = exported.state_dict()
    assert set(after) == set(before)
    for name, value in after.items():
        moved = not torch.equal(value, before[name])
        assert moved == (name in ("3.weight", "5.weight")), name
        if moved:
            assert torch.linalg.matrix_rank(value - before[name], rtol=1e-9) <= 6
    assert all(one.requires_grad for one in exported.parameters())


def test_without_freezing_everything_trains_and_convolutions_may_be_adapted() -> None:
    before = network().state_dict()
    recipe, _, _ = trained(tikhon.PiSSA(2, where="weights", freeze=False))
    after = recipe.export().state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in after)


def test_the_difference_is_a_lora_of_twice_the_rank() -> None:
    a0, b0, a, b = drawn(2, 5), drawn(4, 2), drawn(3, 5)[:2], drawn(5, 2)[:4]
    more_a, more_b = difference_lora(a, b, a0, b0)
    assert more_a.shape == (4, 5)
    torch.testing.assert_close(more_b @ more_a, b @ a - b0 @ a0)


def test_the_penalty_keeps_vectors_orthonormal() -> None:
    errors = []
    for strength in (0.0, 4e-3):
        _, model, _ = trained(tikhon.SORSA(3, strength=strength), steps=60, rate=0.05)
        layer = model[3].parametrizations.weight
        a, b, _ = layer[0].factors(layer.original)
        errors.append(nonorthonormality([a, b.T]).item())
    assert errors[1] < 0.2 * errors[0]


def test_the_penalty_is_divided_by_the_learning_rate_and_has_no_gradient_where_it_is_zero() -> None:
    exact = torch.eye(2, 5, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(nonorthonormality([exact]), exact)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    recipe, model, _ = trained(tikhon.SORSA(3, strength=4e-3), steps=5)
    recipe.loss(INPUTS, LABELS)
    rows = []
    for place in (3, 5):
        layer = model[place].parametrizations.weight
        a, b, _ = layer[0].factors(layer.original)
        rows += [a, b.T]
    assert recipe.log()["loss/sorsa/orthonormality"] == pytest.approx(nonorthonormality(rows).item() / 0.5)


def test_ranks_and_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TikhonError, match="positive integer"):
        tikhon.PiSSA(rank=0)
    with pytest.raises(TikhonError, match="no rank of 5"):
        tikhon.Recipe(tikhon.SORSA(rank=5)).prepare(network())
    with pytest.raises(TikhonError, match="alpha"):
        tikhon.PiSSA(alpha=-1.0)
    for iterations in (-1, 2.0, True):
        with pytest.raises(TikhonError, match="iterations must be None or an integer"):
            tikhon.PiSSA(iterations=iterations)
