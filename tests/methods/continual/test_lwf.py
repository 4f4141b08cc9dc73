"""Learning without forgetting: the loss by hand, one softmax a task or one for all, the frozen copy, saving."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon

DOUBLE = torch.float64
T = 2.0


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6)).double()


def data(seed: int, *classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 4, dtype=DOUBLE, generator=generator)
    return x, torch.tensor(classes)[torch.randint(len(classes), (16,), generator=generator)]


def ready(method: tikhon.LwF, **arguments: object):
    model = network()
    recipe = tikhon.Recipe(method, **arguments)
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model, optimizer


def train(recipe, optimizer, x: Tensor, y: Tensor, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()


def by_hand(scores: Tensor, old: Tensor, softmaxes: list[list[int]]) -> Tensor:
    losses = []
    for row, before in zip(scores, old, strict=True):
        loss = torch.zeros((), dtype=DOUBLE)
        for kept in softmaxes:
            p, q = (before[kept] / T).exp(), (row[kept] / T).exp()
            loss = loss - (p / p.sum() * (q / q.sum()).log()).sum()
        losses.append(loss)
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("joint", "softmaxes"), [(False, [[0, 1], [2, 3]]), (True, [[0, 1, 2, 3]])], ids=["heads", "joint"]
)
def test_loss_by_hand_after_two_tasks(joint: bool, softmaxes: list[list[int]]) -> None:
    recipe, model, optimizer = ready(tikhon.LwF(strength=0.7, joint=joint))
    for task, classes in enumerate([(0, 1), (2, 3)]):
        x, y = data(task, *classes)
        train(recipe, optimizer, x, y)
        recipe.end_task([(x[:9], y[:9]), (x[9:], y[9:])])
    x, y = data(2, 4, 5)
    with torch.no_grad():
        old = model.eval()(x)
    model.train()
    train(recipe, optimizer, x, y, 2)
    loss = recipe.loss(x, y)
    with torch.no_grad():
        scores = model(x)
    torch.testing.assert_close(loss.detach(), F.cross_entropy(scores, y) + 0.7 * by_hand(scores, old, softmaxes))


def test_without_data_one_softmax_is_over_all_outputs() -> None:
    recipe, model, optimizer = ready(tikhon.LwF())
    x, y = data(0, 0, 1)
    train(recipe, optimizer, x, y)
    recipe.end_task()
    recipe.end_task()  # the same outputs again: counted once
    with torch.no_grad():
        old = model.eval()(x)
    model.train()
    loss = recipe.loss(x, y).detach()
    with torch.no_grad():
        scores = model(x)
    torch.testing.assert_close(loss, F.cross_entropy(scores, y) + by_hand(scores, old, [list(range(6))]))


def test_before_the_first_task_ends_training_is_plain() -> None:
    results = []
    for methods in ([], [tikhon.LwF()]):
        model = network()
        recipe = tikhon.Recipe(*methods)
        recipe.prepare(model)
        recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
        train(recipe, optimizer, *data(0, 0, 1))
        results.append(model[0].weight.detach())
    assert torch.equal(*results)


def test_a_head_keeps_its_answers() -> None:
    kept = {}
    for strength in (0.0, 3.0):
        current = [0, 1]

        def own(output: Tensor, target: Tensor, current=current) -> Tensor:
            return F.cross_entropy(output[:, current], target - current[0], reduction="none")

        recipe, model, optimizer = ready(tikhon.LwF(strength=strength), base=own)
        x, _ = data(0, 0)
        y = (x[:, 0] > 0).long()
        train(recipe, optimizer, x, y, 200)
        recipe.end_task([(x, y)])
        current[:] = [2, 3]
        train(recipe, optimizer, x, 2 + (x[:, 1] > 0).long(), 200)
        with torch.no_grad():
            kept[strength] = F.cross_entropy(model(x)[:, :2], y)
    assert kept[3.0] < 0.5 * kept[0.0]


def test_state_moves_the_old_network_and_its_tasks() -> None:
    recipe, model, optimizer = ready(method := tikhon.LwF())
    train(recipe, optimizer, *data(0, 0, 1))
    recipe.end_task([data(0, 0, 1)])
    other, fresh, _ = ready(resumed := tikhon.LwF())
    fresh.load_state_dict(model.state_dict())
    other.load_state_dict(recipe.state_dict())
    assert resumed.tasks == [[0, 1]]
    x, y = data(3, 4, 5)
    assert torch.equal(recipe.loss(x, y), other.loss(x, y))
    assert method.old.tensors.keys() == model.state_dict().keys()


def test_wrong_input() -> None:
    recipe, _, _ = ready(method := tikhon.LwF(), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="class indices"):
        recipe.end_task([(torch.zeros(3, 4, dtype=DOUBLE), torch.zeros(3, 6))])
    assert method.tasks == []
    with pytest.raises(tikhon.TikhonError, match="temperature"):
        tikhon.LwF(temperature=0.0)
