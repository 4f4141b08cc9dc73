"""Mean teacher: the loss and the teacher by hand, what is deployed, the ramp, and what inputs without labels teach."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.mean_teacher import disagreement, ramp_up


def same(x: Tensor, generator: torch.Generator) -> Tensor:
    return x


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def ready(model: nn.Module, *arguments: object, steps: int | None = None, **named: object):
    recipe = tikhon.Recipe(method := tikhon.MeanTeacher(*arguments, **named))
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.2), steps=steps)
    return recipe, method, optimizer


def batch(seed: int, rows: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator), torch.randint(3, (rows,), generator=generator)


def step(recipe, optimizer, seed: int) -> None:
    optimizer.zero_grad()
    recipe.loss(*batch(seed)).backward()
    optimizer.step()


def test_the_teacher_is_the_average_that_it_is_said_to_be() -> None:
    model = network()
    recipe, method, optimizer = ready(model, decay=0.6, ramp=0.0, view=same)
    expected = [one.detach().clone() for one in model.parameters()]
    for number in range(6):
        step(recipe, optimizer, number)
        decay = min(1 - 1 / (number + 2), 0.6)
        expected = [decay * a + (1 - decay) * w.detach() for a, w in zip(expected, model.parameters(), strict=True)]
    for one, of in zip(method.teacher.tensors.values(), expected, strict=True):
        torch.testing.assert_close(one, of)
    with recipe.deployed() as deployed:
        torch.testing.assert_close(deployed[0].weight, expected[0])
    x, _ = batch(9)
    by_hand = network()
    by_hand.load_state_dict({**model.state_dict(), **method.teacher.tensors})  # with the student's statistics
    torch.testing.assert_close(recipe.export().eval()(x), by_hand.eval()(x))


def test_loss_by_hand_over_labelled_and_unlabelled() -> None:
    model = network()
    pool = torch.full((5, 4), 0.3)
    recipe, method, optimizer = ready(model, pool, strength=7.0, ramp=0.0, view=same, count=4)
    for number in range(3):
        step(recipe, optimizer, number)
    x, y = batch(3)
    student, teacher = copy.deepcopy(model), copy.deepcopy(model).eval()
    loss = recipe.loss(x, y)
    teacher.load_state_dict({**model.state_dict(), **method.teacher.tensors})  # the statistics have seen the batch
    with torch.no_grad():
        p, other = student(x), student(pool[:4])
        distances = [
            (p.softmax(1) - teacher(x).softmax(1)).square().sum(1) / 3,
            (other.softmax(1) - teacher(pool[:4]).softmax(1)).square().sum(1) / 3,
        ]
    expected = F.cross_entropy(p, y) + 7.0 * torch.cat(distances).sum() / 14
    torch.testing.assert_close(loss.detach(), expected)


def test_the_ramp() -> None:
    assert ramp_up(0.0) == pytest.approx(math.exp(-5))
    model = network()
    recipe, _, optimizer = ready(model, strength=10.0, ramp=0.5, decay=1.0, view=lambda x, _: x + 1.0, steps=10)
    for number in range(7):
        x, y = batch(number)
        optimizer.zero_grad()
        loss = recipe.loss(x, y)
        log = recipe.log()
        share = min(1.0, number / 10 / 0.5)
        whole = log["loss/task"] + 10.0 * math.exp(-5 * (1 - share) ** 2) * log["loss/mean_teacher/consistency"]
        assert float(loss.detach()) == pytest.approx(whole, rel=1e-5)
        loss.backward()
        optimizer.step()


def test_both_views_are_drawn_anew() -> None:
    seen: list[Tensor] = []

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(x + torch.randn(x.shape, generator=generator))
        return seen[-1]

    recipe, _, _ = ready(network(), torch.zeros(5, 4), ramp=0.0, view=view)
    recipe.loss(*batch(0))
    of_batch, of_student, of_teacher = seen
    assert not torch.equal(of_student, of_teacher)
    assert not torch.equal(of_batch, of_student)


def test_inputs_without_labels_teach() -> None:
    """Two rings of points around the origin of a line: labels on two, the rest found by closeness."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-2.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    y = torch.arange(200) % 2
    x = centres[y] + torch.randn(200, 4, generator=generator) * torch.tensor([0.7, 2.0, 2.0, 2.0])
    right = {}
    for strength in (0.0, 50.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        view = lambda x, g: x + torch.randn(x.shape, generator=g) * torch.tensor([0.3, 2.0, 2.0, 2.0])  # noqa: E731
        recipe, _, optimizer = ready(model, x, strength=strength, decay=0.95, ramp=0.0, count=50, view=view)
        for _ in range(200):
            optimizer.zero_grad()
            recipe.loss(x[:6], y[:6]).backward()
            optimizer.step()
        right[strength] = float((recipe.export()(x).argmax(1) == y).float().mean())
    assert right[50.0] > right[0.0] + 0.02


def test_edges_and_wrong_input() -> None:
    assert disagreement(torch.eye(3), torch.eye(3).roll(1, 0)).tolist() == pytest.approx([2 / 3] * 3)
    for arguments, says in (
        ({"decay": 1.5}, "decay"),
        ({"ramp": 2.0}, "ramp"),
        ({"count": 0}, "count"),
        ({"unlabelled": torch.zeros(0, 4)}, "no further inputs"),
    ):
        with pytest.raises(tikhon.TikhonError, match=says):
            tikhon.MeanTeacher(**arguments)
    recipe = tikhon.Recipe(tikhon.MeanTeacher())
    model = recipe.prepare(network())
    with pytest.raises(tikhon.TikhonError, match="how long"):
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(tikhon.TikhonError, match="class"):
        tikhon.Recipe(tikhon.MeanTeacher(), base=F.mse_loss)
