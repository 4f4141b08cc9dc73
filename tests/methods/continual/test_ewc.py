"""EWC: closed form of linear regression, the Fisher by brute force, several tasks, online decay, what is forgotten."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from linear_regression import DOUBLE, attached, half_squared_error, linear, regression, train
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import tikhon
from tikhon.math import fisher
from tikhon.math.fisher import anchor_penalty
from tikhon.methods.continual.ewc import centre_of_both


@pytest.mark.parametrize("strength", [0.7, 1e5])
def test_closed_form_of_linear_regression(strength: float) -> None:
    start = torch.tensor([1.0, -1.0, 0.5], dtype=DOUBLE)
    model = linear(start)
    recipe = attached(model, tikhon.EWC(strength), base=half_squared_error)
    old_inputs, old_target = regression(0)
    recipe.end_task([(old_inputs, old_target)])
    residuals = old_inputs @ start - old_target
    importance = (residuals[:, None] * old_inputs).square().mean(0)
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
    anchor = tikhon.EWC()
    recipe = attached(model, anchor)
    running = model[1].running_mean.clone()
    recipe.end_task([(inputs[:13], target[:13]), (inputs[13:], target[13:])])  # unequal batches
    for name, expected in brute_force_fisher(model, inputs, target).items():
        torch.testing.assert_close(anchor.importance.tensors[name], expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(model[1].running_mean, running)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_mappings_and_model_outputs_are_read_as_in_training() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3, dtype=DOUBLE)

        def forward(self, features: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(features)}

    model, (inputs, target) = Model(), classes()
    anchor = tikhon.EWC()
    recipe = attached(model, anchor, target="labels", output="logits")
    recipe.end_task([{"features": inputs, "labels": target}])
    expected = brute_force_fisher(model.head, inputs, target)["weight"]
    torch.testing.assert_close(anchor.importance.tensors["head.weight"], expected, rtol=1e-10, atol=1e-14)


def test_without_an_anchor_training_is_plain() -> None:
    inputs, target = regression(0)
    results = []
    for methods in ([], [tikhon.EWC(5.0)]):
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
    recipe = attached(model, tikhon.EWC(10.0))
    recipe.end_task(data)
    file = io.BytesIO()
    torch.save([recipe.state_dict(), model.state_dict()], file)
    file.seek(0)
    state, weights = torch.load(file, weights_only=True)
    other = classifier()
    resumed = attached(other, tikhon.EWC(10.0))
    resumed.load_state_dict(state)
    other.load_state_dict(weights)
    for one, of in ((recipe, model), (resumed, other)):
        of.eval()[3].p = 0.0
        of.train()
        train(one, of, inputs.flip(1), target, lr=0.1, steps=3)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def two_tasks(method: tikhon.EWC) -> tuple[nn.Module, list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """The model after two tasks, and by brute force the weights and the Fishers at the end of each."""
    model, (inputs, target) = classifier(), classes()
    recipe = attached(model, method)
    weights, fishers = [], []
    for rows in (slice(0, 10), slice(10, 20)):
        weights.append({name: one.detach().clone() for name, one in model.named_parameters()})
        fishers.append(brute_force_fisher(model, inputs[rows], target[rows]))
        recipe.end_task([(inputs[rows], target[rows])])
        if not weights[1:]:
            train(recipe, model, inputs[10:], target[10:], lr=0.05, steps=3)
    return model, weights, fishers


def test_two_tasks_pull_like_two_penalties() -> None:
    method = tikhon.EWC(50.0)
    model, weights, fishers = two_tasks(method)
    moved = {name: one.detach() + 0.1 for name, one in model.named_parameters()}
    for name, at in moved.items():
        separately = sum(f[name] * (at - w[name]) for f, w in zip(fishers, weights, strict=True))
        as_one = method.importance.tensors[name] * (at - method.anchor.tensors[name])
        torch.testing.assert_close(as_one, separately, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_online_there_is_one_anchor_and_older_fishers_fade(decay: float) -> None:
    method = tikhon.EWC(50.0, decay=decay)
    model, _, (first, second) = two_tasks(method)
    for name, parameter in model.named_parameters():
        expected = decay * first[name] + second[name]
        torch.testing.assert_close(method.importance.tensors[name], expected, rtol=1e-9, atol=1e-13)
        assert torch.equal(method.anchor.tensors[name], parameter)


def test_the_centre_of_two_penalties_is_where_their_sum_is_least() -> None:
    c, f = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([3.0, 0.0, 0.0])
    d, g = torch.tensor([4.0, 2.0, 7.0]), torch.tensor([1.0, 2.0, 0.0])
    (centre,) = centre_of_both([c], [f], [d], [g])
    torch.testing.assert_close(centre, torch.tensor([1.0, 2.0, 7.0]))


def test_sampled_labels_give_the_fisher_of_the_predictions() -> None:
    model = nn.Linear(4, 3, dtype=DOUBLE)
    inputs = classes()[0][:1].repeat(4000, 1)
    method = tikhon.EWC(labels="sampled")
    attached(model, method).end_task([(inputs, torch.zeros(4000, dtype=torch.int64))])
    p = model(inputs[:1]).softmax(1)[0].detach()
    each = [(p - F.one_hot(torch.tensor(k), 3)).square() for k in range(3)]
    expected = sum(chance * one for chance, one in zip(p, each, strict=True))  # of the biases, whose input is 1
    torch.testing.assert_close(method.importance.tensors["bias"], expected, rtol=0.1, atol=0.0)
    observed = tikhon.EWC()
    attached(model, observed).end_task([(inputs, torch.zeros(4000, dtype=torch.int64))])
    torch.testing.assert_close(observed.importance.tensors["bias"], each[0])


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
    for strength in (0.0, 100.0):
        model = nn.Linear(6, 2)
        with torch.no_grad():
            model.weight.zero_()
        recipe = attached(model, tikhon.EWC(strength, where="weights"))
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


def test_wrong_input_changes_nothing() -> None:
    model, (inputs, target) = classifier(), classes()
    anchor = tikhon.EWC()
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
        tikhon.Recipe(tikhon.EWC(), tikhon.WeightCompander())
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.EWC(-1.0)
    with pytest.raises(tikhon.TikhonError, match="labels is"):
        tikhon.EWC(labels="guessed")
    with pytest.raises(tikhon.TikhonError, match="class"):
        tikhon.Recipe(tikhon.EWC(labels="sampled"), base=F.mse_loss)
    model = weight_norm(nn.Linear(3, 2))
    recipe = attached(model, tikhon.EWC())
    with pytest.raises(tikhon.TikhonError, match="weight is parametrised"):
        recipe.end_task([(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))])
