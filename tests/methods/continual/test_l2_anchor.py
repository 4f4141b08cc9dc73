"""L2 anchor: closed form of linear regression, no anchor no change, saving, and what is forgotten."""

from __future__ import annotations

import io

import pytest
import torch
from linear_regression import DOUBLE, attached, half_squared_error, linear, regression, train
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import tikhon


@pytest.mark.parametrize("strength", [0.7, 1e5])
def test_closed_form_of_linear_regression(strength: float) -> None:
    start = torch.tensor([1.0, -1.0, 0.5], dtype=DOUBLE)
    model = linear(start)
    recipe = attached(model, tikhon.L2Anchor(strength), base=half_squared_error)
    recipe.end_task()
    inputs, target = regression(1)
    curvature = float(torch.linalg.eigvalsh(inputs.T @ inputs / 40).max() + strength)
    train(recipe, model, inputs, target, lr=1.0 / curvature, steps=600)
    left = inputs.T @ inputs / 40 + strength * torch.eye(3, dtype=DOUBLE)
    expected = torch.linalg.solve(left, inputs.T @ target / 40 + strength * start)
    torch.testing.assert_close(model.weight[0].detach(), expected, rtol=1e-6, atol=1e-8)
    if strength > 1e4:
        torch.testing.assert_close(model.weight[0].detach(), start, rtol=0.0, atol=1e-3)


def classifier() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.to(DOUBLE)


def classes(rows: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(rows, 4, dtype=DOUBLE, generator=generator), torch.randint(3, (rows,), generator=generator)


def test_without_an_anchor_training_is_plain() -> None:
    inputs, target = regression(0)
    results = []
    for methods in ([], [tikhon.L2Anchor(5.0)]):
        model = linear(torch.ones(3, dtype=DOUBLE))
        recipe = tikhon.Recipe(*methods, base=half_squared_error)
        recipe.prepare(model)
        train(recipe, model, inputs, target, lr=0.1, steps=5)
        results.append(model.weight.detach())
    assert torch.equal(*results)


def test_the_anchor_survives_saving() -> None:
    inputs, target = classes()
    model = classifier()
    recipe = attached(model, tikhon.L2Anchor(10.0, where="all"))
    recipe.end_task()
    file = io.BytesIO()
    torch.save([recipe.state_dict(), model.state_dict()], file)
    file.seek(0)
    state, weights = torch.load(file, weights_only=True)
    other = classifier()
    resumed = attached(other, tikhon.L2Anchor(10.0, where="all"))
    resumed.load_state_dict(state)
    other.load_state_dict(weights)
    for one, of in ((recipe, model), (resumed, other)):
        of.eval()[3].p = 0.0
        of.train()
        train(one, of, inputs.flip(1), target, lr=0.1, steps=3)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def accuracy(model: nn.Module, inputs: Tensor, target: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = (model(inputs).argmax(1) == target).double().mean()
    model.train()
    return float(right)


def test_the_first_task_is_not_forgotten() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=generator)
    tasks = [
        (inputs, (inputs[:, 0] > 0).long()),
        (inputs * torch.tensor([0.0, 1, 1, 1, 1, 1]), (inputs[:, 1] > 0).long()),
    ]
    remembered = {}
    for strength in (0.0, 1.0):
        model = nn.Linear(6, 2)
        with torch.no_grad():
            model.weight.zero_()
        recipe = attached(model, tikhon.L2Anchor(strength))
        train(recipe, model, *tasks[0], lr=0.5, steps=200)
        assert accuracy(model, *tasks[0]) > 0.95
        recipe.end_task()
        train(recipe, model, *tasks[1], lr=0.2, steps=400)
        remembered[strength] = accuracy(model, *tasks[0])
    plain, anchored = remembered.values()
    assert plain < 0.9
    assert anchored > plain + 0.05


def test_weight_norm_is_anchored_once() -> None:
    model = weight_norm(nn.Linear(3, 2))
    recipe = attached(model, tikhon.L2Anchor(2.0), base=lambda output, target: 0.0 * output.sum(1))
    recipe.end_task()
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.parametrizations.weight.original0.mul_(3.0)
    loss = recipe.loss(torch.ones(4, 3), torch.zeros(4))
    torch.testing.assert_close(loss.detach(), (model.weight.detach() - before).square().sum())


def test_wrong_input() -> None:
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.L2Anchor(-1.0)
    with pytest.raises(tikhon.TikhonError, match=r"prepare\(model\) first"):
        tikhon.Recipe(tikhon.L2Anchor()).end_task()
