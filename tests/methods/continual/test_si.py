"""Synaptic intelligence: the plain loop that it stands for, what the path is worth, saving, what is forgotten."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.continual.si import path_importance

DOUBLE = torch.float64


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batches(seed: int, steps: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(12, 4, dtype=DOUBLE, generator=generator), torch.randint(3, (12,), generator=generator))
        for _ in range(steps)
    ]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def plain_loop(model: nn.Module, strength: float, damping: float, tasks: int) -> list[Tensor]:
    """Zenke et al., written out: returns the importance after the tasks, each but the last followed by the next."""
    optimizer, leaves = optimizer_of(model), list(model.parameters())
    importance = [torch.zeros_like(one) for one in leaves]
    anchors = [one.detach().clone() for one in leaves]
    for task in range(tasks):
        credit = [torch.zeros_like(one) for one in leaves]
        for x, y in batches(task):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            gradients = torch.autograd.grad(loss, leaves, retain_graph=True)
            pull = sum((o * (w - a) ** 2).sum() for o, w, a in zip(importance, leaves, anchors, strict=True))
            (loss + strength * pull).backward()
            before = [one.detach().clone() for one in leaves]
            optimizer.step()
            for earned, g, w, old in zip(credit, gradients, leaves, before, strict=True):
                earned -= g * (w.detach() - old)
        for o, earned, w, a in zip(importance, credit, leaves, anchors, strict=True):
            o += earned / ((w.detach() - a) ** 2 + damping)
            o.clamp_(min=0.0)
        anchors = [one.detach().clone() for one in leaves]
    return importance


def trained(method: tikhon.SI, tasks: int) -> nn.Module:
    model = network()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    recipe.attach(optimizer := optimizer_of(model))
    for task in range(tasks):
        for x, y in batches(task):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        recipe.end_task()
    return model


def test_three_tasks_are_the_plain_loop() -> None:
    method = tikhon.SI(strength=2.0, damping=0.05)
    model, plain = trained(method, 3), network()
    importance = plain_loop(plain, 2.0, 0.05, 3)
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    for (name, _), expected in zip(model.named_parameters(), importance, strict=True):
        torch.testing.assert_close(method.importance.tensors[name], expected, rtol=1e-9, atol=1e-11)
    free = network()
    plain_loop(free, 0.0, 0.05, 3)
    assert (free[0].weight - plain[0].weight).abs().max() > 1e-3


def test_small_steps_earn_what_the_loss_has_fallen() -> None:
    x, y = batches(0, 1)[0]
    model, method = network(), tikhon.SI()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=1e-3))
    start = F.cross_entropy(model(x), y)
    for _ in range(50):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
    fallen = start - F.cross_entropy(model(x), y)
    earned = sum(one.sum() for one in method.credit.tensors.values())
    torch.testing.assert_close(earned, fallen, rtol=1e-2, atol=0.0)


def test_a_path_of_no_length_is_damped_and_a_loss_is_cut_off() -> None:
    zero = torch.zeros(3, dtype=DOUBLE)
    credit = torch.tensor([0.2, -0.2, 0.2], dtype=DOUBLE)
    moved = torch.tensor([0.0, 0.0, 3.0], dtype=DOUBLE)
    (found,) = path_importance([zero], [credit], [moved], 0.1)
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0, 0.2 / 9.1], dtype=DOUBLE))


def test_a_frozen_parameter_is_left_alone() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    recipe = tikhon.Recipe(method := tikhon.SI())
    recipe.prepare(model)
    recipe.attach(optimizer := optimizer_of(model))
    for _ in range(2):
        for x, y in batches(0):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        recipe.end_task()
    assert "0.weight" not in method.importance.tensors
    assert method.importance.tensors["2.weight"].sum() > 0


def test_a_task_that_ends_before_any_step_matters_nothing() -> None:
    model = network()
    recipe = tikhon.Recipe(method := tikhon.SI())
    recipe.prepare(model)
    recipe.attach(optimizer_of(model))
    recipe.end_task()
    assert all(not one.any() for one in method.importance.tensors.values())


def test_wrong_arguments() -> None:
    with pytest.raises(tikhon.TikhonError, match="damping"):
        tikhon.SI(damping=0.0)
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.SI(strength=-1.0)
    with pytest.raises(tikhon.TikhonError, match="plain weights"):
        tikhon.Recipe(tikhon.SI(), tikhon.WeightCompander())
