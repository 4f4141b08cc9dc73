"""What a recipe tells of the training in hand beyond parts and strengths: zeros, skipped steps, samples left out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tikhon
from tikhon import EATA, L2, DataDiet, MixUp, Recipe, TikhonError

from .common import mlp, ready, rows, train
from .test_scaling import INITIAL, optimizer_of, scaled_step


def test_sparsity_is_the_share_of_zeros_among_the_weights_that_methods_select() -> None:
    recipe = Recipe(L2(0.1), L2(0.1, where="*.bias").named("biases"))
    assert "sparsity" not in recipe.log()  # there is no model yet
    model, _ = ready(recipe)
    first = model[0]
    with torch.no_grad():
        first.weight[0] = 0.0
        model[2].bias[1] = 0.0
    zeros = first.in_features + sum(int((one == 0).sum()) for one in model.parameters() if one.ndim == 1)
    assert recipe.log()["sparsity"] == zeros / sum(one.numel() for one in model.parameters())
    alone = Recipe(L2(0.1, where="0"))
    ready(alone, model)
    assert alone.log()["sparsity"] == first.in_features / (first.weight.numel() + first.bias.numel())


def test_sparsity_is_of_the_weights_that_the_network_computes_with() -> None:
    class Masked(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * (torch.arange(weight.numel()).reshape(weight.shape) % 4 != 0)

    model = mlp()
    for number in (0, 2):
        nn.utils.parametrize.register_parametrization(model[number], "weight", Masked())
    recipe = Recipe(L2(0.1))
    ready(recipe, model)
    assert recipe.log()["sparsity"] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("methods", [(), (MixUp(),)])
def test_methods_that_select_no_parameters_have_no_sparsity(methods: tuple[tikhon.Method, ...]) -> None:
    recipe = Recipe(*methods)
    assert "sparsity" not in recipe.log()
    _, optimizer = ready(recipe)
    train(recipe, optimizer)
    assert "sparsity" not in recipe.log()


@pytest.mark.parametrize(("kind", "late"), [("sgd", 1), ("fused sgd", 0)])
def test_skipped_steps_are_counted_and_the_count_survives_a_resume(kind: str, late: int) -> None:
    recipe = Recipe(L2(0.1))
    model = recipe.prepare(mlp().float())
    optimizer = optimizer_of(kind, model)
    recipe.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=1000)
    scaled_step(recipe, optimizer, scaler, overflow=False, order="zero to none")
    assert "skipped/steps" not in recipe.log()
    for _ in range(3):
        scaled_step(recipe, optimizer, scaler, overflow=True, order="zero to none")
    assert recipe.log()["skipped/steps"] == 3 - late  # without fused kernels the next loss tells
    scaled_step(recipe, optimizer, scaler, overflow=False, order="zero to none")
    assert recipe.log()["skipped/steps"] == 3
    assert recipe.step == 2

    resumed = Recipe(L2(0.1))
    other = resumed.prepare(mlp().float())
    resumed.attach(optimizer_of(kind, other))
    resumed.load_state_dict(copy.deepcopy(recipe.state_dict()))
    scaled_step(resumed, optimizer_of(kind, other), scaler, overflow=False, order="zero to none")
    assert resumed.log()["skipped/steps"] == 3


def diet(**settings: object) -> DataDiet:
    return DataDiet(keep=0.5, scores=torch.arange(8.0), **settings)  # type: ignore[arg-type]  # keeps 4, 5, 6, 7


def test_samples_left_out_are_counted_when_their_step_has_happened() -> None:
    recipe = Recipe(diet(), MixUp())
    model = recipe.prepare(mlp(), samples=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    x, y = rows()
    ids = torch.arange(8)
    for part in (slice(0, 6), slice(6, 8)):
        recipe.loss(x[part], y[part], index=ids[part]).backward()
        assert "skipped/samples" not in recipe.log()
    optimizer.step()
    assert recipe.log()["skipped/samples"] == 4
    optimizer.zero_grad()
    given = torch.tensor([0.0, 0, 1, 1, 0, 1, 1, 1])  # the caller left two of the four out already
    recipe.loss(x, y, index=ids, weight=given).backward()
    optimizer.step()
    assert recipe.log()["skipped/samples"] == 6


def test_a_closure_that_is_evaluated_often_counts_once() -> None:
    recipe = Recipe(diet())
    model = recipe.prepare(mlp(), samples=8)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    recipe.attach(optimizer)
    x, y = rows()
    evaluations = 0

    def closure() -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        loss = recipe.loss(x, y, index=torch.arange(8))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert evaluations > 1
    assert recipe.log()["skipped/samples"] == 4


def test_weights_of_the_caller_are_no_samples_left_out() -> None:
    recipe = Recipe(MixUp())
    _, optimizer = ready(recipe)
    x, y = rows()
    recipe.loss(x, y, weight=torch.tensor([0.0] * 4 + [1.0] * 4)).backward()
    optimizer.step()
    assert "skipped/samples" not in recipe.log()


def test_adaptation_tells_how_many_samples_it_left_out() -> None:
    recipe = Recipe(method := EATA(margin=0.8, similarity=0.9, where="all"))
    _, optimizer = ready(recipe, nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).double())
    left_out = 0
    for seed in range(5):
        optimizer.zero_grad()
        recipe.loss(3.0 * torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).double()).backward()
        optimizer.step()
        assert method.kept is not None
        left_out += int((~method.kept).sum())
    assert 0 < left_out < 40
    assert recipe.log()["skipped/samples"] == left_out


def test_damaged_counts_are_refused() -> None:
    recipe = Recipe(L2(0.1))
    ready(recipe)
    state = recipe.state_dict()
    assert state["skipped"] == {"steps": 0, "samples": 0}
    with pytest.raises(TikhonError, match="damaged"):
        recipe.load_state_dict({**state, "skipped": {"steps": -1, "samples": 0}})
    del state["skipped"]
    with pytest.raises(TikhonError, match="damaged"):
        recipe.load_state_dict(state)
