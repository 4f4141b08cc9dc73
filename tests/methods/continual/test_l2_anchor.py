"""L2 anchor: closed form of linear regression, the Fisher by brute force, several tasks, and what is forgotten."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import tikhon
from tikhon.math import fisher
from tikhon.math.fisher import anchor_penalty

DOUBLE = torch.float64


def half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output.squeeze(1) - target).square()


def regression(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 3, dtype=DOUBLE, generator=generator) * torch.tensor([1.0, 0.5, 2.0], dtype=DOUBLE)
    return inputs, inputs @ torch.randn(3, dtype=DOUBLE, generator=generator) + 0.3


def linear(weight: Tensor) -> nn.Linear:
    model = nn.Linear(3, 1, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        model.weight.copy_(weight)
    return model


def attached(model: nn.Module, method: tikhon.Method, lr: float = 0.1, **arguments: object) -> tikhon.Recipe:
    recipe = tikhon.Recipe(method, **arguments)
    recipe.prepare(model)
    return recipe.attach(torch.optim.SGD(model.parameters(), lr=lr))


def train(recipe: tikhon.Recipe, model: nn.Module, inputs: Tensor, target: Tensor, lr: float, steps: int) -> None:
    recipe.detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    recipe.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(inputs, target).backward()
        optimizer.step()


@pytest.mark.parametrize("fisher", [False, True])
@pytest.mark.parametrize("strength", [0.7, 1e5])
def test_closed_form_of_linear_regression(fisher: bool, strength: float) -> None:
    start = torch.tensor([1.0, -1.0, 0.5], dtype=DOUBLE)
    model = linear(start)
    recipe = attached(model, tikhon.L2Anchor(strength, fisher=fisher), base=half_squared_error)
    old_inputs, old_target = regression(0)
    recipe.end_task([(old_inputs, old_target)])
    residuals = old_inputs @ start - old_target
    importance = (residuals[:, None] * old_inputs).square().mean(0) if fisher else torch.ones(3, dtype=DOUBLE)
    inputs, target = regression(1)
    curvature = float(torch.linalg.eigvalsh(inputs.T @ inputs / 40).max() + strength * importance.max())
    train(recipe, model, inputs, target, lr=1.0 / curvature, steps=600)
    left = inputs.T @ inputs / 40 + strength * torch.diag(importance)
    expected = torch.linalg.solve(left, inputs.T @ target / 40 + strength * importance * start)
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


def brute_force_fisher(model: nn.Module, inputs: Tensor, target: Tensor) -> dict[str, Tensor]:
    model = copy.deepcopy(model).eval()
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for x, y in zip(inputs, target, strict=True):
        model.zero_grad()
        F.cross_entropy(model(x[None]), y[None]).backward()
        for name, parameter in model.named_parameters():
            total[name] += parameter.grad**2
    return {name: value / len(inputs) for name, value in total.items()}


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_the_fisher_is_the_mean_of_squared_gradients_of_samples(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(fisher, "GRADIENTS_AT_ONCE", at_once)
    model, (inputs, target) = classifier(), classes()
    anchor = tikhon.L2Anchor(where="all", fisher=True)
    recipe = attached(model, anchor)
    running = model[1].running_mean.clone()
    recipe.end_task([(inputs[:13], target[:13]), (inputs[13:], target[13:])])  # unequal batches
    for name, expected in brute_force_fisher(model, inputs, target).items():
        torch.testing.assert_close(anchor.importance.tensors[name], expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(model[1].running_mean, running)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_after_two_tasks_one_anchor_and_the_sum_of_fishers() -> None:
    model, (inputs, target) = classifier(), classes()
    anchor = tikhon.L2Anchor(50.0, where="all", fisher=True)
    recipe = attached(model, anchor)
    first = brute_force_fisher(model, inputs[:10], target[:10])
    recipe.end_task([(inputs[:10], target[:10])])
    train(recipe, model, inputs[10:], target[10:], lr=0.01, steps=3)
    second = brute_force_fisher(model, inputs[10:], target[10:])
    recipe.end_task([(inputs[10:], target[10:])])
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(anchor.importance.tensors[name], first[name] + second[name], rtol=1e-9, atol=1e-13)
        assert torch.equal(anchor.anchor.tensors[name], parameter)


def test_mappings_and_model_outputs_are_read_as_in_training() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3, dtype=DOUBLE)

        def forward(self, features: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(features)}

    model, (inputs, target) = Model(), classes()
    anchor = tikhon.L2Anchor(fisher=True)
    recipe = attached(model, anchor, target="labels", output="logits")
    recipe.end_task([{"features": inputs, "labels": target}])
    expected = brute_force_fisher(model.head, inputs, target)["weight"]
    torch.testing.assert_close(anchor.importance.tensors["head.weight"], expected, rtol=1e-10, atol=1e-14)


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
    data = [(inputs, target)]
    model = classifier()
    recipe = attached(model, tikhon.L2Anchor(10.0, where="all", fisher=True))
    recipe.end_task(data)
    file = io.BytesIO()
    torch.save([recipe.state_dict(), model.state_dict()], file)
    file.seek(0)
    state, weights = torch.load(file, weights_only=True)
    other = classifier()
    resumed = attached(other, tikhon.L2Anchor(10.0, where="all", fisher=True))
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


@pytest.mark.parametrize("fisher", [False, True])
def test_the_first_task_is_not_forgotten(fisher: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=generator)
    tasks = [
        (inputs, (inputs[:, 0] > 0).long()),
        (inputs * torch.tensor([0.0, 1, 1, 1, 1, 1]), (inputs[:, 1] > 0).long()),
    ]
    remembered = {}
    for strength in (0.0, 100.0 if fisher else 1.0):
        model = nn.Linear(6, 2)
        with torch.no_grad():
            model.weight.zero_()
        recipe = attached(model, tikhon.L2Anchor(strength, fisher=fisher))
        train(recipe, model, *tasks[0], lr=0.5, steps=200)
        assert accuracy(model, *tasks[0]) > 0.95
        recipe.end_task([tasks[0]])
        train(recipe, model, *tasks[1], lr=0.2, steps=400)
        remembered[strength] = accuracy(model, *tasks[0])
    plain, anchored = remembered.values()
    assert plain < 0.9
    assert anchored > plain + 0.05


def test_penalty_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, anchors, importance = (
        [torch.rand(shape, dtype=DOUBLE, generator=generator) for shape in ((3, 2), (4,))] for _ in range(3)
    )
    for weight in weights:
        weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda *some: anchor_penalty(some, anchors, importance), weights)
    assert torch.autograd.gradcheck(lambda *some: anchor_penalty(some, anchors), weights)


def test_weight_norm_is_anchored_once_and_has_no_fisher() -> None:
    model = weight_norm(nn.Linear(3, 2))
    recipe = attached(model, tikhon.L2Anchor(2.0), base=lambda output, target: 0.0 * output.sum(1))
    recipe.end_task()
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.parametrizations.weight.original0.mul_(3.0)
    loss = recipe.loss(torch.ones(4, 3), torch.zeros(4))
    torch.testing.assert_close(loss.detach(), (model.weight.detach() - before).square().sum())
    recipe = attached(weight_norm(nn.Linear(3, 2)), tikhon.L2Anchor(fisher=True))
    with pytest.raises(tikhon.TikhonError, match="weight is parametrised"):
        recipe.end_task([(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))])


def test_wrong_input_changes_nothing() -> None:
    model, (inputs, target) = classifier(), classes()
    anchor = tikhon.L2Anchor(fisher=True)
    recipe = attached(model, anchor)
    with pytest.raises(tikhon.TikhonError, match=r"recipe\.end_task\(loader\)"):
        recipe.end_task()
    with pytest.raises(tikhon.TikhonError, match="no samples"):
        recipe.end_task([])
    with pytest.raises(tikhon.TikhonError, match="Labels range"):
        recipe.end_task([(inputs, target + 1)])
    with pytest.raises(tikhon.TikhonError, match="not finite"):
        recipe.end_task([(inputs * float("nan"), target)])
    assert not anchor.anchor.tensors
    assert not anchor.importance.tensors
    with pytest.raises(tikhon.TikhonError, match="plain weights"):
        tikhon.Recipe(tikhon.L2Anchor(fisher=True), tikhon.WeightCompander())
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.L2Anchor(-1.0)
    with pytest.raises(tikhon.TikhonError, match=r"prepare\(model\) first"):
        tikhon.Recipe(tikhon.L2Anchor()).end_task()
