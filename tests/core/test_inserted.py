"""Inserted layers: which modules a name or a glob means, and when the inserted function acts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from tikhon import Dropout, Recipe, TikhonError, linear
from tikhon.core.inserted import Inserted, check_places, modules_at


def nested() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 2)
    )


@pytest.mark.parametrize(
    ("at", "names"),
    [
        ("0", ["0"]),
        ("0.1", ["0.1"]),
        ("*", ["0", "1", "2"]),
        ("*.1", ["0.1", "1.1"]),
        ("[01].*", ["0.0", "0.1", "1.0", "1.1"]),
        (("2", "0.*", "0.1"), ["0.0", "0.1", "2"]),
    ],
)
def test_a_part_of_a_glob_stands_for_a_part_of_a_name(at: Any, names: list[str]) -> None:
    model = nested()
    found = modules_at(model, at, "method")
    assert list(found) == names
    assert all(module is model.get_submodule(name) for name, module in found.items())


@pytest.mark.parametrize("at", ["3", "0.2", "0.0.*", ("0", "*.5")])
def test_what_matches_nothing_is_refused(at: Any) -> None:
    with pytest.raises(TikhonError, match="method: the model has no module"):
        modules_at(nested(), at, "method")
    with pytest.raises(TikhonError, match="method: the model has no module"):
        check_places(nested(), at, "method")


def doubled(features: Tensor, rate: float | Tensor) -> Tensor:
    return features * 2.0 * rate


@pytest.mark.parametrize(("at", "factor"), [("2", 2.0), (("0", "1"), 4.0)])
def test_it_acts_after_modules_that_train_and_only_with_a_rate(at: Any, factor: float) -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity(), nn.Linear(3, 2, bias=False))
    x = torch.ones(4, 3)
    plain = model(x)
    inserted = Inserted(doubled)
    inserted.place(model, at, "method")
    assert torch.equal(model(x), plain)
    inserted.rate = 1.0
    torch.testing.assert_close(model(x), factor * plain)
    assert torch.equal(model.eval()(x), plain)
    model.train()
    inserted.remove()
    assert torch.equal(model(x), plain)


def test_by_default_it_acts_before_the_last_linear_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.randn(4, 3)
    inserted = Inserted(doubled)
    inserted.place(model, None, "method")
    inserted.rate = 1.0
    torch.testing.assert_close(model(x), model[2](0.5 * 2.0 * model[:2](x)))
    torch.testing.assert_close(model[2](x), nn.functional.linear(2.0 * x, model[2].weight, model[2].bias))


def test_a_module_that_returns_several_tensors_is_refused() -> None:
    model = nn.Sequential(nn.LSTM(3, 3))
    inserted = Inserted(doubled)
    inserted.place(model, "0", "method")
    inserted.rate = 0.5
    with pytest.raises(TikhonError, match="LSTM returns tuple"):
        model(torch.ones(2, 1, 3))


def test_a_schedule_is_compiled_once() -> None:
    """Not once for each of its values, which ends at torch's limit of recompilations."""
    model, counter = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), CompileCounter()
    recipe = Recipe(Dropout(p=linear(0.0, 0.9)))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, model=torch.compile(model, backend=counter, fullgraph=True), steps=20)
    for _ in range(20):
        recipe.loss(torch.randn(4, 3), torch.arange(4) % 2).backward()
        optimizer.step()
    assert counter.frame_count == 1
