"""The confidence penalty against torch's distributions, its threshold, and positions that do not count."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.confidence_penalty import entropy

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.tensor([0, 1, 2, 2, 1, 0])


def attached(model, *methods, base=F.cross_entropy):
    recipe = tikhon.Recipe(*methods, base=base)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe


@pytest.mark.parametrize("threshold", [None, 0.0, 0.9, 5.0])
def test_the_formula(threshold):
    model = nn.Linear(4, 3).double()
    with torch.no_grad():
        model.weight.mul_(4.0)
    loss = attached(model, tikhon.ConfidencePenalty(0.3, threshold)).loss(X, Y)
    h = Categorical(logits=model(X)).entropy()
    assert threshold != 0.9 or 0 < int((h < 0.9).sum()) < 6
    penalty = -h if threshold is None else (threshold - h).clamp_min(0.0)
    torch.testing.assert_close(loss, F.cross_entropy(model(X), Y) + 0.3 * penalty.mean(), rtol=1e-12, atol=0.0)


def test_the_strongest_penalty_leaves_no_confidence():
    """Cross-entropy against a label costs at most as much as the entropy gives: predictions go to even odds."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    recipe = tikhon.Recipe(tikhon.ConfidencePenalty(1e3))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recipe.attach(optimizer)
    for _ in range(500):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        optimizer.step()
    torch.testing.assert_close(F.softmax(model(X), 1), torch.full((6, 3), 1 / 3).double(), rtol=0.0, atol=5e-3)


def test_positions_that_are_ignored_are_not_penalised():
    model = nn.Conv1d(4, 3, 1).double()
    recipe = attached(model, tikhon.ConfidencePenalty(0.3))
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    y = torch.randint(3, (2, 5))
    y[0, 1:] = -100
    kept = y >= 0
    h = Categorical(logits=model(x).movedim(1, -1)).entropy()
    expected = F.cross_entropy(model(x), y) - 0.3 * h[kept].mean()
    torch.testing.assert_close(recipe.loss(x, y), expected, rtol=1e-12, atol=0.0)
    soft = F.one_hot(y.clamp_min(0), 3).movedim(-1, 1).double()
    torch.testing.assert_close(recipe.loss(x, soft), F.cross_entropy(model(x), soft) - 0.3 * h.mean())


def test_it_is_of_the_probabilities_of_the_loss_in_force():
    model = nn.Linear(4, 3).double()
    recipe = attached(model, tikhon.StableMax(), tikhon.ConfidencePenalty(0.3))
    loss, p = recipe.loss(X, Y), recipe.probabilities(model(X))
    expected = -p[torch.arange(6), Y].log().mean() + 0.3 * (p * p.log()).sum(1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)
    assert (p - F.softmax(model(X), 1)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_certainty_is_finite(dtype):
    scores = torch.tensor([[300.0, 0.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    found = entropy(F.softmax(scores, 1))
    torch.testing.assert_close(found.double(), torch.tensor([0.0, math.log(2.0)]).double(), rtol=1e-6, atol=1e-30)
    assert torch.autograd.grad(found.sum(), scores)[0].isfinite().all()


def test_wrong_input_is_refused():
    with pytest.raises(tikhon.TikhonError, match="threshold must be"):
        tikhon.ConfidencePenalty(threshold=-1.0)
    with pytest.raises(tikhon.TikhonError, match="confidence_penalty needs class scores"):
        tikhon.Recipe(tikhon.ConfidencePenalty(), base=F.mse_loss)
