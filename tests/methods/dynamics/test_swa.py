"""SWA: torch's own averaged model, where it begins, what is deployed, and resuming."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

import tikhon

EPOCHS, STEPS_AN_EPOCH = 8, 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def train(method: tikhon.SWA, epochs: int = EPOCHS, watch=lambda model, epoch, step: None):
    model = network()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    total = EPOCHS * STEPS_AN_EPOCH
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.5), steps=total, epochs=EPOCHS)
    generator = torch.Generator().manual_seed(1)
    for epoch in range(epochs):
        for step in range(STEPS_AN_EPOCH):
            x = torch.randn(8, 4, generator=generator)
            optimizer.zero_grad()
            recipe.loss(x, (x[:, 0] > 0).long()).backward()
            optimizer.step()
            watch(model, epoch, step)
        recipe.end_epoch()
    return recipe, model


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_the_average_is_that_of_torch(every: str) -> None:
    averaged = AveragedModel(network())

    def watch(model: nn.Module, epoch: int, step: int) -> None:
        number = epoch * STEPS_AN_EPOCH + step
        if every == "step" and number / (EPOCHS * STEPS_AN_EPOCH) >= 0.6:
            averaged.update_parameters(model)
        if every == "epoch" and step == STEPS_AN_EPOCH - 1 and (epoch + 1) / EPOCHS >= 0.6:
            averaged.update_parameters(model)

    recipe, model = train(tikhon.SWA(start=0.6, every=every), watch=watch)
    last = model[0].weight.detach().clone()
    with recipe.deployed() as deployed:
        torch.testing.assert_close(deployed[0].weight, averaged.module[0].weight)
    assert torch.equal(model[0].weight, last)
    exported = recipe.export()
    for one, other in zip(exported.parameters(), averaged.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert (exported[0].weight - last).abs().max() > 1e-3


def test_before_the_start_the_trained_weights_are_deployed() -> None:
    recipe, model = train(tikhon.SWA(start=0.75), epochs=5)
    with recipe.deployed() as deployed:
        assert torch.equal(deployed[0].weight, model[0].weight)
    assert torch.equal(recipe.export()[0].weight, model[0].weight)


def test_state_goes_on_with_the_count() -> None:
    recipe, _ = train(tikhon.SWA(start=0.0), epochs=5)
    other = tikhon.SWA(start=0.0)
    resumed = tikhon.Recipe(other)
    model = resumed.prepare(network())
    resumed.attach(torch.optim.SGD(model.parameters(), lr=0.5), steps=EPOCHS * STEPS_AN_EPOCH)
    resumed.load_state_dict(recipe.state_dict())
    assert other.count == 5
    before = other.average.tensors["0.bias"].clone()
    resumed.end_epoch()
    torch.testing.assert_close(other.average.tensors["0.bias"], (5 * before + model[0].bias.detach()) / 6)


def test_both_leaves_of_a_weight_are_averaged() -> None:
    model = weight_norm(nn.Linear(3, 2))
    recipe = tikhon.Recipe(tikhon.SWA(start=0.0, every="step"))
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.5), steps=4)
    averaged = AveragedModel(model)
    for _ in range(4):
        optimizer.zero_grad()
        recipe.loss(torch.randn(8, 3), torch.arange(8) % 2).backward()
        optimizer.step()
        averaged.update_parameters(model)
    x = torch.randn(5, 3)
    torch.testing.assert_close(recipe.export()(x), averaged.module(x))


def test_wrong_arguments() -> None:
    for arguments in ({"start": 1.0}, {"start": -0.1}, {"start": tikhon.linear(0.0, 0.5)}, {"every": "cycle"}):
        with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
            tikhon.SWA(**arguments)
    recipe = tikhon.Recipe(tikhon.SWA())
    model = recipe.prepare(network())
    with pytest.raises(tikhon.TikhonError, match="how long"):
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.5))
    with pytest.raises(tikhon.TikhonError, match="cannot run together"):
        tikhon.Recipe(tikhon.SWA(), tikhon.EMA())
