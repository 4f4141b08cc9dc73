"""REPA: the cosine of torch, the paths' derivatives, the projector's life, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.generative.repa import interpolant, misalignment


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(features, at="0", size=8, strength=0.5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 5))
    recipe = tikhon.Recipe(tikhon.REPA(features, at=at, size=size, strength=strength, width=16), base=F.mse_loss)
    recipe.prepare(model, samples=len(features))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    recipe.attach(optimizer)
    return recipe, model, optimizer


def test_it_is_the_mean_cosine_over_tokens() -> None:
    one, other = drawn(4, 3, 6), drawn(4, 3, 7)[..., :6]
    torch.testing.assert_close(misalignment(one, other), -F.cosine_similarity(one, other, dim=-1).mean(1))
    torch.testing.assert_close(misalignment(5.0 * one, 0.1 * one), -torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_velocity_is_the_derivative_of_the_path(path) -> None:
    x, noise, t = drawn(3, 2, 4), drawn(3, 2, 5)[..., :4], torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    _, velocity = interpolant(x, noise, t, path)
    after, before = interpolant(x, noise, t + 1e-6, path)[0], interpolant(x, noise, t - 1e-6, path)[0]
    torch.testing.assert_close((after - before) / 2e-6, velocity, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(interpolant(x, noise, torch.zeros(3), path)[0], x)
    torch.testing.assert_close(interpolant(x, noise, torch.ones(3), path)[0], noise)


@pytest.mark.parametrize("shape", [(12, 6), (12, 4, 6)])
def test_hidden_features_come_to_align_with_their_samples(shape) -> None:
    features = drawn(*shape).float()
    recipe, model, optimizer = ready(features)
    inputs = torch.randn(shape[0], *shape[1:-1], 5)
    index = torch.randperm(len(inputs))
    values = []
    for _ in range(400):
        optimizer.zero_grad()
        recipe.loss(inputs[index], inputs[index], index=index).backward()
        optimizer.step()
        values.append(recipe.log()["loss/repa/alignment"])
    assert values[0] > -0.5
    assert values[-1] < -0.9, values[-1]
    assert hasattr(model, "repa_projector_weight1")
    assert not hasattr(recipe.export(), "repa_projector_weight1")


def test_the_projector_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    recipe = tikhon.Recipe(tikhon.REPA(torch.zeros(4, 6), at="0", size=8, width=16), base=F.mse_loss)
    model = nn.Sequential(nn.Linear(5, 8))
    torch.manual_seed(0)
    recipe.prepare(model, samples=4)
    assert torch.equal(torch.rand(1), expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"samples, N, D"):
        tikhon.REPA(torch.zeros(4), at="0", size=8)
    with pytest.raises(TikhonError, match="'linear' or 'cosine'"):
        interpolant(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1), "straight")  # type: ignore[arg-type]
    recipe, _, _ = ready(torch.zeros(12, 6), size=7)
    with pytest.raises(TikhonError, match=r"\(3, 8\), which do not fit size=7"):
        recipe.loss(torch.zeros(3, 5), torch.zeros(3, 5), index=torch.arange(3))
    recipe, _, _ = ready(torch.zeros(12, 4, 6))
    with pytest.raises(TikhonError, match="tokens"):
        recipe.loss(torch.zeros(3, 2, 5), torch.zeros(3, 2, 5), index=torch.arange(3))
