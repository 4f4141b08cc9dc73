"""Autocast: passes through the model are narrowed as the caller asked, what methods compute is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon import SAM, LabelSmoothing, Method, MultiSampleDropout, Recipe, TikhonError

from .common import CARD, mlp, ready, rows, same, weights

HALF = [torch.bfloat16, torch.float16]
MOMENTS = ("batch", "remember", "targets", "terms", "around", "parameter_terms", "gradients", "after_step")
X, Y = rows()
X = X.float()


class Sees(nn.Module):
    """A linear layer that keeps the type of what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.types = nn.Linear(3, 3), []

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x)
        self.types.append(output.dtype)
        return output


class Multiplies(Method):
    """Multiplies matrices in every moment of the step, which is what autocast narrows, and keeps their types."""

    card = CARD
    slots = {"batch": "augment", "targets": "smooth", "gradients": "project", "after_step": "map"}

    def __init__(self) -> None:
        super().__init__()
        self.types: dict[str, torch.dtype] = {}

    def taps(self, model: nn.Module) -> list[str]:
        return ["inner"]

    def _multiply(self, moment: str, *values: Tensor) -> None:
        assert all(one.dtype == torch.float32 for one in values), moment
        self.types[moment] = (values[0] @ values[0].T).dtype

    def batch(self, inputs: Any, target: Any, step: Any) -> Any:
        self._multiply("batch", inputs)
        return inputs + 1.0, target

    def remember(self, output: Tensor, target: Any, step: Any) -> None:
        self._multiply("remember", output, step.tap("inner").input, step.tap("inner").output)

    def targets(self, output: Tensor, target: Any, step: Any) -> Any:
        self._multiply("targets", output, step.clean(output))
        return target

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        again, features = step.forward_with_taps(step.inputs)
        self._multiply("terms", again, features["inner"].output, step.forward(step.inputs))
        return {}

    def around(self, inner: Any, step: Any) -> Tensor:
        loss: Tensor = inner()
        self._multiply("around", loss[None, None])
        return loss + inner()

    def parameter_terms(self, model: nn.Module, step: Any) -> Any:
        self._multiply("parameter_terms", *(one.weight for one in step.select("weights")))
        return {}

    def gradients(self, parameters: Any, step: Any) -> None:
        self._multiply("gradients", *(one.leaf.grad for one in parameters if one.leaf.ndim == 2))

    def after_step(self, model: nn.Module, step: Any) -> None:
        self._multiply("after_step", *(one.leaf for one in step.select("weights")))


@pytest.mark.parametrize("cast", HALF)
@pytest.mark.parametrize("whole_step", [False, True], ids=["the loss", "the whole step"])
def test_passes_are_narrow_and_methods_compute_in_float32(cast: torch.dtype, whole_step: bool) -> None:
    method = Multiplies()
    recipe = Recipe(method)
    model, optimizer = ready(recipe, Sees())
    with torch.autocast("cpu", cast):
        loss = recipe.loss(X, Y)
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == cast
        if whole_step:
            loss.backward()
            optimizer.step()
    if not whole_step:
        loss.backward()
        optimizer.step()
    assert loss.dtype == torch.float32
    assert method.types == dict.fromkeys(MOMENTS, torch.float32)
    assert model.types == 7 * [cast]


def test_a_refused_batch_leaves_autocast_as_it_was() -> None:
    recipe = Recipe(LabelSmoothing(0.1))
    ready(recipe, mlp().float())
    with torch.autocast("cpu", torch.float16):
        with pytest.raises(TikhonError):
            recipe.loss(X * torch.nan, Y)
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.float16
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("cast", HALF)
def test_without_methods_it_is_the_loop_that_everybody_writes_to_the_bit(cast: torch.dtype) -> None:
    recipe = Recipe()
    mine, mine_optimizer = ready(recipe, mlp().float())
    yours = mlp().float()
    optimizer = torch.optim.SGD(yours.parameters(), lr=0.1)
    for _ in range(3):
        for chosen, loss in (
            (mine_optimizer, lambda: recipe.loss(X, Y)),
            (optimizer, lambda: F.cross_entropy(yours(X), Y)),
        ):
            chosen.zero_grad()
            with torch.autocast("cpu", cast):
                value = loss()
            value.backward()
            chosen.step()
    assert same(weights(mine), weights(yours))
    with torch.autocast("cpu", cast), torch.no_grad():
        assert torch.equal(recipe.loss(X, Y), F.cross_entropy(yours(X), Y))


@pytest.mark.parametrize("cast", HALF)
def test_a_second_pass_sees_the_weights_that_moved(cast: torch.dtype) -> None:
    """Autocast keeps narrowed weights until it ends: inside it the pass at the worst point would be the first again."""
    radius = 0.5
    recipe = Recipe(SAM(radius))
    mine, optimizer = ready(recipe, mlp().float())
    yours = mlp().float()
    leaves = list(yours.parameters())

    def loss() -> Tensor:
        with torch.autocast("cpu", cast):
            return F.cross_entropy(yours(X), Y)

    before = weights(yours)
    gradients = torch.autograd.grad(loss(), leaves)
    length = torch.linalg.vector_norm(torch.cat([one.flatten() for one in gradients]))
    with torch.no_grad():
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.add_(radius * gradient / length)
    expected = loss()
    found = torch.autograd.grad(expected, leaves)

    optimizer.zero_grad()
    with torch.autocast("cpu", cast):
        value = recipe.loss(X, Y)
    value.backward()
    assert same(weights(mine), before)
    torch.testing.assert_close(value, expected)
    for parameter, gradient in zip(mine.parameters(), found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=2e-2, atol=1e-3)


def test_every_mask_of_a_multi_sample_head_counts_under_autocast() -> None:
    """What a hook wrote on the tensor that it returned is found on the widened one."""
    model = mlp().float()
    recipe = Recipe(MultiSampleDropout(samples=64, p=0.5))
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(0)
        loss = recipe.loss(X, Y).detach()
        torch.manual_seed(0)
        of_the_mean = F.cross_entropy(model(X).float(), Y).detach()  # under the same masks
    assert loss > of_the_mean + 1e-3  # Jensen's inequality: the losses of all masks, averaged


def test_compiled_every_mask_counts_too() -> None:
    losses = []
    for compiler in ({}, {"backend": "eager", "fullgraph": True}):
        torch._dynamo.reset()
        recipe = Recipe(MultiSampleDropout(samples=4, p=0.5))
        model = recipe.prepare(mlp().float())
        called = torch.compile(model, **compiler) if compiler else model
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1), model=called)
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses.append(recipe.loss(X, Y).detach())
    assert torch.equal(*losses)
