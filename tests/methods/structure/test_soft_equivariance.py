"""Soft equivariance: explicit group averages, whole networks, what is let go of, and wrong input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.math.groups import copies, equivariant_part, generated, regular
from tikhon.methods.structure.soft_equivariance import relaxed, violation


def turns(count):
    angles = [2 * math.pi * k / count for k in range(count)]
    return torch.tensor([[[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in angles])


MIRROR = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0]))])
TURN, FLIP = (turns(4), torch.ones(4, 1, 1)), (MIRROR, torch.ones(2, 1, 1))


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def ready(symmetries, model=None, rate=0.02, **arguments):
    model = network() if model is None else model
    method = tikhon.EquivariancePenalty(symmetries, **arguments)
    recipe = tikhon.Recipe(method, base=F.mse_loss)
    recipe.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    recipe.attach(optimizer)
    return method, recipe, model, optimizer


def trained(recipe, optimizer, x, y, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()


def test_the_regular_representation_permutes_as_the_group_multiplies() -> None:
    dihedral = torch.cat([turns(3), turns(3) @ MIRROR[1]])  # not commutative
    torch.testing.assert_close(
        generated(torch.stack([turns(3)[1], MIRROR[1]])).sum(0), torch.zeros(2, 2), atol=1e-5, rtol=0.0
    )
    assert len(generated(torch.stack([turns(3)[1], MIRROR[1]]))) == 6
    found = regular(dihedral, dihedral)
    for g in range(6):
        for h in range(6):
            (k,) = [k for k in range(6) if torch.allclose(dihedral[g] @ dihedral[h], dihedral[k], atol=1e-5)]
            assert found[g, k, h] == 1.0
            torch.testing.assert_close(found[g] @ found[h], found[k])
    assert found.sum() == 36


def test_the_part_is_the_average_and_the_nearest_that_commutes() -> None:
    group, weight = copies(regular(turns(4), turns(4)), 2), drawn(8, 2)
    part = equivariant_part(weight, group, turns(4))
    torch.testing.assert_close(part, sum(g @ weight @ r.inverse() for g, r in zip(group, turns(4), strict=True)) / 4)
    for g, r in zip(group, turns(4), strict=True):
        torch.testing.assert_close(g @ part, part @ r)
    torch.testing.assert_close(equivariant_part(part, group, turns(4)), part)
    # The null space of the conditions g W = W r, found without averages.
    conditions = [
        torch.kron(g, torch.eye(2)) - torch.kron(torch.eye(8), r.T.contiguous())
        for g, r in zip(group, turns(4), strict=True)
    ]
    _, values, rows = torch.linalg.svd(torch.cat(conditions), full_matrices=True)
    basis = rows[int((values > 1e-4).sum()) :]
    torch.testing.assert_close((basis.T @ (basis @ weight.flatten())).reshape(8, 2), part, rtol=1e-4, atol=1e-5)
    bias = drawn(8)
    expected = 0.5 * (weight - part).square().sum() + 0.5 * (bias.reshape(2, 4).var(1, correction=0) * 4).sum()
    torch.testing.assert_close(violation(weight, bias, group, turns(4)), expected)


def test_a_network_without_violations_is_equivariant_and_the_loss_adds_the_others() -> None:
    method, recipe, model, _ = ready({"turn": TURN, "flip": FLIP}, strength=0.3)
    x, y = drawn(16, 2), drawn(16, 1)
    expected = F.mse_loss(model(x), y) + 0.3 * sum(method.violations(model).values())
    torch.testing.assert_close(recipe.loss(x, y), expected)
    with torch.no_grad():
        for place, layer in enumerate(model[::2]):
            for number in range(2):  # every element of the group that both make is a product of one of each
                outgoing, ingoing = (method.get_buffer(f"group{number}_{one}") for one in (place + 1, place))
                layer.weight.copy_(4.0 * equivariant_part(layer.weight, outgoing, ingoing))
                layer.bias.copy_((outgoing @ layer.bias).mean(0))
    assert sum(method.violations(model).values()) < 1e-8
    assert model(x).std() > 1e-3
    for g in (*turns(4), *MIRROR):
        torch.testing.assert_close(model(x @ g.T), model(x), rtol=0.0, atol=1e-5)


def test_outputs_may_turn_too() -> None:
    model = nn.Linear(2, 2)
    method, _, _, optimizer = ready({"turn": (turns(4), turns(4))}, model)
    for _ in range(1000):
        optimizer.zero_grad()
        method.violations(model)["turn"].backward()
        optimizer.step()
    a, b = model.weight.detach()[0]
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[a, b], [-b, a]]), atol=1e-4, rtol=0.0)
    assert model.bias.abs().max() < 1e-4


def test_after_the_warm_up_the_broken_symmetry_is_let_go_of() -> None:
    x = 2.0 * torch.rand(256, 2, generator=torch.Generator().manual_seed(0)) - 1.0
    y = (x[:, :1] ** 2 - x[:, 1:] ** 2) * x[:, :1] * x[:, 1:] * 4.0  # r^4 sin(4 theta): turns hold, the mirror does not
    method, recipe, model, optimizer = ready({"turn": TURN, "flip": FLIP}, strength=0.03, power=2.0, warmup=400)
    trained(recipe, optimizer, x, y, 399)
    assert torch.equal(method.factors, torch.ones(2))
    trained(recipe, optimizer, x, y, 1)
    values = method.violations(model)
    assert values["flip"] > 5.0 * values["turn"]
    torch.testing.assert_close(method.factors, torch.stack([torch.tensor(1.0), (values["turn"] / values["flip"]) ** 2]))
    factors = method.factors.clone()
    trained(recipe, optimizer, x, y, 5)
    assert torch.equal(method.factors, factors)


def test_factors_of_violations_that_vanish() -> None:
    assert relaxed(torch.zeros(2), 2.0).tolist() == [1.0, 1.0]
    assert relaxed(torch.tensor([0.0, 1.0]), 2.0).isfinite().all()
    assert relaxed(torch.tensor([0.2, 0.4]), 0.0).tolist() == [1.0, 1.0]


def test_what_does_not_fit_is_refused() -> None:
    broken = torch.stack([torch.eye(2), turns(3)[1]])
    for symmetries, says in (
        ({}, "at least one"),
        ({"turn": (broken, torch.ones(2, 1, 1))}, "no group"),
        ({"turn": (turns(4), torch.ones(2, 1, 1))}, "as many matrices"),
        ({"turn": (turns(4), 2.0 * torch.ones(4, 1, 1))}, "orthogonal"),
        ({"turn": (turns(4), torch.tensor([1.0, -1.0, -1.0, 1.0]).reshape(4, 1, 1))}, "multiply"),
    ):
        with pytest.raises(TikhonError, match=says):
            tikhon.EquivariancePenalty(symmetries)
    with pytest.raises(TikhonError, match="more than 256"):
        generated(turns(1000)[1:2])
    for warmup in (0, 1.5, True):
        with pytest.raises(TikhonError, match="warmup"):
            tikhon.EquivariancePenalty({"turn": TURN}, warmup=warmup)
    for model, arguments, says in (
        (nn.Sequential(nn.Linear(2, 6), nn.Linear(6, 1)), {}, "the 4 elements .* a multiple"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), {}, "2 inputs and 1 outputs, but the layers have 3 and 1"),
        (nn.Sequential(nn.Linear(2, 4), nn.Linear(8, 1)), {}, "does not take the 4 features"),
        (nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), {"layers": ["0", "1"]}, "'1' is none"),
        (nn.Conv1d(2, 4, 1), {}, r"no nn\.Linear in Conv1d"),
    ):
        with pytest.raises(TikhonError, match=says):
            ready({"turn": TURN}, model, **arguments)
