"""Supervised contrast: a double loop over anchors and positives, samples alone in their class, mixing, effect."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.math.variational import supervised_contrast


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(extra=(), **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(tikhon.SupCon(**arguments), *extra)
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01))
    return recipe, model, optimizer


def by_loops(z, labels, temperature):
    z = F.normalize(z)
    losses = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        total = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        positives = [p for p in others if labels[p] == labels[i]]
        terms = [math.log(math.exp(float(z[i] @ z[p]) / temperature) / total) for p in positives]
        losses.append(-sum(terms) / len(terms) if terms else 0.0)
    return torch.tensor(losses, dtype=torch.float64)


def test_it_is_the_double_loop_over_anchors_and_positives() -> None:
    x, y = drawn(9, 4), torch.tensor([0, 1, 0, 2, 1, 0, 0, 1, 1])  # class 2 has one sample
    recipe, model, _ = ready(temperature=0.3, strength=0.5)
    loss = recipe.loss(x, y)
    expected = by_loops(model[:2](x).detach(), y, 0.3)
    assert expected[3] == 0.0
    assert recipe.log()["loss/supcon"] == pytest.approx(expected.mean().item())
    assert loss.item() == pytest.approx(F.cross_entropy(model(x), y).item() + 0.5 * expected.mean().item())


def test_weights_of_samples_weigh_anchors() -> None:
    x, y, weight = drawn(6, 4), torch.arange(6) % 2, torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    recipe, model, _ = ready()
    recipe.loss(x, y, weight=weight)
    expected = by_loops(model[:2](x).detach(), y, 0.1)
    assert recipe.log()["loss/supcon"] == pytest.approx(float((expected * weight).sum() / weight.sum()))


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [0, 0, 0]])
def test_alone_and_all_alike_are_finite(labels) -> None:
    recipe, model, _ = ready()
    recipe.loss(drawn(len(labels), 4), torch.tensor(labels)).backward()
    if len(set(labels)) == len(labels):
        assert recipe.log()["loss/supcon"] == 0.0
    assert all(one.grad.isfinite().all() for one in model.parameters())


def test_mixed_rows_are_of_the_class_that_most_of_them_is() -> None:
    recipe, model, _ = ready(extra=(tikhon.MixUp(),))
    recipe.loss(drawn(12, 4), torch.arange(12) % 3).backward()
    assert recipe.log()["loss/supcon"] > 0.0
    assert all(one.grad.isfinite().all() for one in model.parameters())


def test_probabilities_count_as_their_likeliest_class() -> None:
    x, y = drawn(9, 4), torch.arange(9) % 3
    values = []
    for target in (y, 0.8 * F.one_hot(y, 3).double() + 0.2 / 3):
        recipe, _, _ = ready()
        recipe.loss(x, target)
        values.append(recipe.log()["loss/supcon"])
    assert values[0] == pytest.approx(values[1])


def test_features_of_a_class_come_together() -> None:
    x, y = drawn(30, 4), torch.arange(30) % 3
    found = []
    for strength in (0.0, 5.0):
        recipe, model, optimizer = ready(strength=strength)
        for _ in range(200):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        found.append(supervised_contrast(model[:2](x).detach(), y).mean().item())
    assert found[1] < found[0] - 0.1, found


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="temperature"):
        tikhon.SupCon(temperature=0.0)
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv1d(3, 3, 1))
    recipe = tikhon.Recipe(tikhon.SupCon(at="1"))
    recipe.attach(torch.optim.SGD(recipe.prepare(model).parameters(), lr=0.1))
    with pytest.raises(TikhonError, match="one label a sample"):
        recipe.loss(torch.zeros(2, 2, 4), torch.zeros(2, 4, dtype=torch.int64))
