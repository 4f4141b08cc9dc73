"""BANG: averages in closed form, members at the ends, what training sees, and what a resumed run remembers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch() -> tuple[Tensor, Tensor]:
    return drawn(24, 5), torch.arange(24) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def ready(model: nn.Module, **arguments: object) -> tuple[tikhon.Recipe, torch.optim.Optimizer]:
    recipe = tikhon.Recipe(tikhon.BANG(**arguments))  # type: ignore[arg-type]
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.5))
    return recipe, optimizer


def finetune(recipe: tikhon.Recipe, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(*batch()).backward()
        optimizer.step()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_export_is_the_average_of_the_members(share: float) -> None:
    model = network()
    before = copy.deepcopy(dict(model.named_parameters()))
    recipe, optimizer = ready(model, share=share)
    finetune(recipe, optimizer)
    after = copy.deepcopy(dict(model.named_parameters()))
    statistics = model[1].running_mean.clone()
    for name, found in recipe.export().named_parameters():
        expected = (1.0 - share) * before[name] + share * after[name]
        torch.testing.assert_close(found, expected)
        if share in (0.0, 1.0):
            assert torch.equal(found, expected)
    assert (after["0.weight"] - before["0.weight"]).abs().max() > 0.1
    assert torch.equal(model[1].running_mean, statistics)


def test_of_linear_models_the_average_averages_the_scores() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3, dtype=torch.float64)
    x, _ = batch()
    pretrained = model(x).detach()
    recipe, optimizer = ready(model, share=0.4)
    finetune(recipe, optimizer)
    finetuned = model(x).detach()
    with recipe.deployed() as deployed:
        torch.testing.assert_close(deployed(x), 0.6 * pretrained + 0.4 * finetuned)
    assert torch.equal(model(x), finetuned)


def test_training_sees_smoothed_labels_and_nothing_of_the_average() -> None:
    model, plain = network(), network()
    recipe, optimizer = ready(model, share=0.5, smoothing=0.2)
    finetune(recipe, optimizer)
    other = torch.optim.SGD(plain.parameters(), lr=0.5)
    for _ in range(5):
        other.zero_grad()
        x, y = batch()
        F.cross_entropy(plain(x), y, label_smoothing=0.2).backward()
        other.step()
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_head_that_was_not_pretrained_is_left_out() -> None:
    model = network()
    recipe, optimizer = ready(model, share=0.5, where=("0", "1"))
    finetune(recipe, optimizer)
    body, head = model[0].weight.detach().clone(), model[3].weight.detach().clone()
    exported = recipe.export()
    assert torch.equal(exported[3].weight, head)
    assert not torch.equal(exported[0].weight, body)


def test_a_resumed_run_remembers_the_pretrained_weights() -> None:
    model = network()
    recipe, optimizer = ready(model, share=0.5)
    finetune(recipe, optimizer)
    other = network()
    other.load_state_dict(model.state_dict())  # prepared where the first run stood, half-way
    resumed, _ = ready(other, share=0.5)
    resumed.load_state_dict(recipe.state_dict())
    for found, expected in zip(resumed.export().parameters(), recipe.export().parameters(), strict=True):
        assert torch.equal(found, expected)


def test_what_does_not_fit_is_refused() -> None:
    for share in (-0.1, 1.1, float("nan"), "half"):
        with pytest.raises(TikhonError, match="share"):
            tikhon.BANG(share=share)  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="no schedule"):
        tikhon.BANG(share=tikhon.linear(0.0, 1.0))  # type: ignore[arg-type]
    for other in (tikhon.EMA(), tikhon.PiSSA(rank=2)):
        with pytest.raises(TikhonError, match="cannot run together"):
            tikhon.Recipe(tikhon.BANG(), other)
