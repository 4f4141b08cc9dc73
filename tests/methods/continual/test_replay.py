"""Replay: what a memory keeps, the loss of old and new samples together, nests of inputs, and what is remembered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.continual.replay import kept_samples

DOUBLE = torch.float64


def ready(method: tikhon.Replay, model: nn.Module | None = None, **arguments: object):
    torch.manual_seed(0)
    model = nn.Linear(3, 4, dtype=DOUBLE) if model is None else model
    recipe = tikhon.Recipe(method, **arguments)
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.5))
    return recipe, model, optimizer


def data(seed: int, rows: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, dtype=DOUBLE, generator=generator), torch.randint(4, (rows,), generator=generator)


def by_brute_force(keys: list[float], labels: list[int], size: int) -> set[int]:
    """Deal out places label by label, round after round, to the largest keys first."""
    best_first = sorted(range(len(keys)), key=lambda i: -keys[i])
    queues = [[i for i in best_first if labels[i] == label] for label in set(labels)]
    kept: list[int] = []
    for place in range(len(keys)):
        kept += sorted((queue[place] for queue in queues if place < len(queue)), key=lambda i: -keys[i])
    return set(kept[:size])


def test_every_label_gets_as_much_room_as_any_other() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 5, 9, 30, 99):
        keys = torch.rand(40, generator=generator)
        labels = (4 * torch.rand(40, generator=generator) ** 3).long()
        found = kept_samples(keys, labels, size)
        assert set(found.tolist()) == by_brute_force(keys.tolist(), labels.tolist(), size)
        assert len(found) == min(size, 40)


def test_a_stream_leaves_what_all_of_it_at_once_would() -> None:
    generator = torch.Generator().manual_seed(1)
    keys, labels = torch.rand(60, generator=generator), torch.randint(3, (60,), generator=generator)
    kept = torch.arange(0)
    for rows in torch.arange(60).split(7):
        seen = torch.cat([kept, rows])
        kept = seen[kept_samples(keys[seen], labels[seen], 10)]
    assert set(kept.tolist()) == set(kept_samples(keys, labels, 10).tolist())


def test_a_reservoir_keeps_every_sample_with_equal_chance() -> None:
    generator = torch.Generator().manual_seed(2)
    counts = torch.zeros(20)
    for _ in range(2000):
        counts[kept_samples(torch.rand(20, generator=generator), torch.zeros(20, dtype=torch.int64), 5)] += 1
    assert ((counts / 2000 - 0.25).abs() < 0.05).all()


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_loss_of_old_and_new_samples_together(strength: float) -> None:
    recipe, model, _ = ready(tikhon.Replay(size=1, strength=strength, count=3))
    old, label = data(0, 1)
    recipe.end_task([(old, label)])  # one sample: whatever is drawn, it is this one
    x, y = data(1)
    new = F.cross_entropy(model(x), y, reduction="sum") + 3 * strength * F.cross_entropy(model(old), label)
    torch.testing.assert_close(recipe.loss(x, y), new / (12 + 3 * strength))


def test_weights_of_samples_stay_with_them() -> None:
    recipe, model, _ = ready(tikhon.Replay(size=1))
    old, label = data(0, 1)
    recipe.end_task([(old, label)])
    x, y = data(1)
    weight = torch.linspace(0.0, 2.0, 12, dtype=DOUBLE)
    losses = (weight * F.cross_entropy(model(x), y, reduction="none")).sum() + 12 * F.cross_entropy(model(old), label)
    torch.testing.assert_close(recipe.loss(x, y, weight=weight), losses / (weight.sum() + 12))


def test_the_memory_holds_samples_of_all_tasks() -> None:
    recipe, _, _ = ready(method := tikhon.Replay(size=8))
    for task in range(4):
        x, _ = data(task, 30)
        recipe.end_task([(x[:11], torch.full((11,), task)), (x[11:], torch.full((19,), task))])
        assert len(method.memory.tensors["target"]) == 8
    assert method.memory.tensors["target"].bincount().tolist() == [2, 2, 2, 2]
    stored = method.memory.tensors["0"]
    everything = torch.cat([data(task, 30)[0] for task in range(4)])
    assert all(bool((everything == row).all(1).any()) for row in stored)


def test_mappings_and_values_are_replayed_too() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 1, dtype=DOUBLE)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.inner(left + right)[:, 0]

    recipe, model, _ = ready(tikhon.Replay(size=1), Model(), base=F.mse_loss, target="y")
    old = {"left": data(0, 1)[0], "right": data(1, 1)[0], "y": torch.ones(1, dtype=DOUBLE)}
    recipe.end_task([old])
    new = {"left": data(2)[0], "right": data(3)[0], "y": torch.zeros(12, dtype=DOUBLE)}
    expected = sum(F.mse_loss(model(one["left"], one["right"]), one["y"]) for one in (old, new)) / 2
    torch.testing.assert_close(recipe.loss(new), expected)


def test_batch_norm_sees_old_and_new() -> None:
    recipe, model, _ = ready(tikhon.Replay(size=1), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4)).double())
    old, label = data(0, 1)
    recipe.end_task([(old, label)])
    x, y = data(1)
    recipe.loss(x, y)
    mean = torch.cat([x, old.expand(12, 3)]).mean(0)
    torch.testing.assert_close(model[0].running_mean, 0.1 * mean)


def test_the_first_task_is_remembered() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 3, dtype=DOUBLE, generator=generator)
    tasks = []
    for classes in ((0, 1), (2, 3)):
        y = torch.tensor(classes).repeat(40)
        tasks.append((centres[y] + 0.1 * torch.randn(80, 3, dtype=DOUBLE, generator=generator), y))
    right = {}
    for strength in (0.0, 1.0):
        recipe, model, optimizer = ready(tikhon.Replay(size=10, strength=strength))
        for x, y in tasks:
            for _ in range(200):
                optimizer.zero_grad()
                recipe.loss(x, y).backward()
                optimizer.step()
            recipe.end_task([(x, y)])
        right[strength] = float((model(tasks[0][0]).argmax(1) == tasks[0][1]).double().mean())
    assert right[0.0] < 0.2
    assert right[1.0] > 0.9


def test_wrong_input_changes_nothing() -> None:
    recipe, _, _ = ready(method := tikhon.Replay())
    for given, says in (
        (None, "loader"),
        ([], "no samples"),
        ([([data(0)[0], torch.zeros(3)], data(0)[1])], "one row a sample"),
    ):
        with pytest.raises(tikhon.TikhonError, match=says):
            recipe.end_task(given)
    assert not method.memory.tensors
    recipe.end_task([data(0)])
    with pytest.raises(tikhon.TikhonError, match="other shapes"):
        recipe.end_task([(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))])
    with pytest.raises(tikhon.TikhonError, match="does not fit the stored"):
        recipe.loss(torch.zeros(2, 5, dtype=DOUBLE), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(tikhon.TikhonError, match="size"):
        tikhon.Replay(size=0)
    with pytest.raises(tikhon.TikhonError, match="count"):
        tikhon.Replay(count=True)
    with pytest.raises(tikhon.TikhonError, match="ids"):
        tikhon.Recipe(tikhon.Replay(), tikhon.ELR())
