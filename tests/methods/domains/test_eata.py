"""EATA: the plain loop that it stands for, the filter, the running mean, the Fisher of decisions, and what is left."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.eata import moved_mean, reliable_and_new

K = 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, K)).double()
    with torch.no_grad():
        model[3].weight.mul_(4.0)
    return model


def ready(model: nn.Module | None = None, momentum: float = 0.0, **arguments: object):
    model = network() if model is None else model
    method = tikhon.EATA(**{"margin": 0.6, "similarity": 0.9} | arguments)
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum))
    return recipe, method, model, optimizer


def step(recipe: tikhon.Recipe, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    recipe.loss(x).backward()
    optimizer.step()


def test_a_stream_is_the_plain_loop_over_kept_samples() -> None:
    recipe, method, model, optimizer = ready(strength=5.0)
    old_data = drawn(30, 5, seed=9)
    recipe.end_task([old_data[:20], old_data[20:]])
    plain = network()
    norms = [plain[1].weight, plain[1].bias]
    anchors = [one.detach().clone() for one in norms]
    fisher = [method.importance.tensors[f"1.{name}"] for name in ("weight", "bias")]
    mean, dropped = None, 0
    for number in range(5):
        x = drawn(16, 5, seed=number)
        step(recipe, optimizer, x)
        p = plain(x).softmax(1)
        entropy = -(p * p.log()).sum(1)
        kept = [i for i in range(16) if entropy[i] < 0.6 * math.log(K)]
        if mean is not None:
            kept = [i for i in kept if F.cosine_similarity(p[i], mean, dim=0).abs() < 0.9]
        dropped += 16 - len(kept)
        weight = torch.exp(0.6 * math.log(K) - entropy.detach())
        loss = (entropy * weight)[kept].mean()
        for norm, anchor, f in zip(norms, anchors, fisher, strict=True):
            loss = loss + 5.0 * (f * (norm - anchor).square()).sum()
        gradients = torch.autograd.grad(loss, norms)
        with torch.no_grad():
            for norm, gradient in zip(norms, gradients, strict=True):
                norm.sub_(0.1 * gradient)
        new = p[kept].mean(0).detach()
        mean = new if mean is None else 0.9 * mean + 0.1 * new
        torch.testing.assert_close(method.mean.read(torch.tensor([0]))[0], mean)
    assert 10 < dropped < 70
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    assert (model[1].weight - anchors[0]).abs().max() > 1e-4


def test_the_fisher_is_of_single_samples_against_the_models_own_decisions() -> None:
    recipe, method, model, _ = ready()
    x = drawn(12, 5, seed=3)
    recipe.end_task([x])
    expected = torch.zeros(8, dtype=torch.float64)
    model.eval()
    for row in x:
        output = model(row[None])
        expected += torch.autograd.grad(F.cross_entropy(output, output.argmax(1)), model[1].weight)[0].square() / 12
    torch.testing.assert_close(method.importance.tensors["1.weight"], expected)
    assert set(method.anchor.tensors) == {"1.weight", "1.bias"}
    recipe.end_task()  # without data the anchor stays
    torch.testing.assert_close(method.importance.tensors["1.weight"], expected)


def test_the_filter_and_the_mean_at_their_edges() -> None:
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    entropy = -(p * p.log()).sum(1)
    new = torch.zeros(2)
    assert reliable_and_new(p, new, entropy, 0.6, 0.5).tolist() == [True, False, True]
    assert reliable_and_new(p, p[0], entropy, 0.6, 0.5).tolist() == [False, False, True]
    nothing = torch.zeros(3, dtype=torch.bool)
    assert torch.equal(moved_mean(p[0], p, nothing, 0.9), p[0])
    assert torch.equal(moved_mean(new, p, nothing, 0.9), new)
    torch.testing.assert_close(moved_mean(new, p, ~nothing, 0.9), p.mean(0))


def test_a_batch_of_which_nothing_is_kept_has_no_gradient_of_its_own() -> None:
    recipe, method, model, optimizer = ready(margin=0.0)
    recipe.end_task([drawn(12, 5)])
    with torch.no_grad():
        model[1].weight.add_(0.1)
    before = model[1].weight.detach().clone()
    step(recipe, optimizer, drawn(8, 5))
    assert torch.equal(model[1].weight, before)
    assert not method.mean.read(torch.tensor([0])).any()


def test_only_norms_train_until_export() -> None:
    recipe, _, model, optimizer = ready()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    step(recipe, optimizer, drawn(16, 5))
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"1.weight", "1.bias"}
    assert all(parameter.requires_grad for parameter in recipe.export().parameters())


def test_the_mean_is_part_of_the_state_and_stays_where_a_step_was_skipped() -> None:
    recipe, method, model, optimizer = ready()
    step(recipe, optimizer, drawn(16, 5))
    mean = method.mean.read(torch.tensor([0]))
    other, resumed, _, _ = ready(model=network())
    other.load_state_dict(recipe.state_dict())
    assert torch.equal(resumed.mean.read(torch.tensor([0])), mean)
    recipe.loss(drawn(16, 5, seed=1)).backward()
    assert not torch.equal(method.mean.read(torch.tensor([0])), mean)
    model.zero_grad()  # the caller gave the step up
    recipe.loss(drawn(16, 5, seed=2))
    method.mean.rewind(0)
    assert torch.equal(method.mean.read(torch.tensor([0])), mean)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="class scores"):
        ready(nn.Sequential(nn.BatchNorm1d(3), nn.Flatten(0)))[0].loss(torch.randn(4, 3))
    with pytest.raises(TikhonError, match="norms"):
        tikhon.Recipe(tikhon.EATA()).prepare(nn.Linear(3, 2))
    with pytest.raises(TikhonError, match="cannot run together"):
        tikhon.Recipe(tikhon.EATA(), tikhon.LabelSmoothing())
