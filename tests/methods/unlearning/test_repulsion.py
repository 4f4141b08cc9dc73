"""Repulsion: the three forms and their gradients by hand, what moves, what is saved, and wrong input."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.unlearning.repulsion import repulsion


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).double()


@pytest.mark.parametrize("form", ["inverse", "exponential", "negative"])
def test_values_and_gradients_are_the_analytic_ones(form) -> None:
    weights = [drawn(3, 2).requires_grad_(), drawn(4).requires_grad_()]
    adapted = [drawn(2, 3).T, drawn(5)[:4]]
    d = sum((one - other).square().sum() for one, other in zip(weights, adapted, strict=True)).item()
    value, slope = {
        "inverse": (1 / d, -1 / d**2),
        "exponential": (math.exp(-0.3 * d), -0.3 * math.exp(-0.3 * d)),
        "negative": (-d, -1.0),
    }[form]
    found = repulsion(weights, adapted, form, 0.3)
    assert found.item() == pytest.approx(value)
    for gradient, one, other in zip(torch.autograd.grad(found, weights), weights, adapted, strict=True):
        torch.testing.assert_close(gradient, slope * 2.0 * (one.detach() - other))


def test_it_is_finite_at_the_adapted_weights() -> None:
    weights = [drawn(3).requires_grad_()]
    for form in ("inverse", "exponential", "negative"):
        found = repulsion(weights, [one.detach().clone() for one in weights], form)
        assert found.isfinite()
        assert torch.autograd.grad(found, weights)[0].isfinite().all()


def trained(strength, form="inverse", where="all", steps=40):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    adapted = {name: value + 0.1 for name, value in model.state_dict().items()}
    start = copy.deepcopy(model.state_dict())
    x, y = drawn(24, 4), torch.arange(24) % 3
    method = tikhon.RepulsionUnlearn(adapted, strength=strength, form=form, where=where)
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recipe.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
    moved = {name: value.detach() for name, value in model.named_parameters()}
    far = {name: (value - adapted[name]).square().sum().item() for name, value in moved.items()}
    return moved, far, start, F.cross_entropy(model(x), y).item()


def test_weights_leave_the_adapted_ones_and_the_task_is_still_learned() -> None:
    plain, stayed, *_, loss = trained(0.0)
    for form, strength in (("inverse", 0.3), ("exponential", 1.0), ("negative", 0.1)):
        _, far, _, with_repulsion = trained(strength, form)
        assert sum(far.values()) > 1.5 * sum(stayed.values())
        assert with_repulsion < loss + 0.5
    some, far, *_ = trained(0.3, where="bias")
    assert far["bias"] > 1.5 * stayed["bias"]
    assert far["weight"] == pytest.approx(stayed["weight"], rel=0.5)
    assert plain.keys() == some.keys()


def test_the_state_holds_the_adapted_weights() -> None:
    adapted = {"weight": torch.ones(3, 4), "bias": torch.ones(3)}
    method = tikhon.RepulsionUnlearn(adapted)
    adapted["weight"].zero_()  # the method has a copy
    fresh = tikhon.RepulsionUnlearn({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)})
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(fresh.adapted.tensors["weight"], torch.ones(3, 4))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="'inverse', 'exponential' or 'negative'"):
        tikhon.RepulsionUnlearn({}, form="square")  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="parameters by name"):
        tikhon.RepulsionUnlearn(nn.Linear(2, 2))  # type: ignore[arg-type]
    model = nn.Linear(4, 3)
    for adapted, says in (
        ({"weight": torch.zeros(3, 4)}, "of bias are none"),
        ({"weight": torch.zeros(4, 3)}, r"\(4, 3\)"),
    ):
        with pytest.raises(TikhonError, match=says):
            tikhon.Recipe(tikhon.RepulsionUnlearn(adapted)).prepare(model)
    tikhon.Recipe(tikhon.RepulsionUnlearn({"weight": torch.zeros(3, 4)}, where="weight")).prepare(model)
