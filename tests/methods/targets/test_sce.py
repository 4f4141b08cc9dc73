"""Symmetric cross-entropy against the definition with clipped labels, and its symmetry."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.sce import reverse_cross_entropy

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.tensor([0, 1, 2, 2, 1, 0])
SOFT = torch.softmax(torch.randn(6, 3, dtype=torch.float64, generator=GENERATOR), 1)
WEIGHT = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)


def loss_of(*methods, y=Y, base=F.cross_entropy, **given):
    """The loss of a small model and the probabilities of its output."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    recipe = tikhon.Recipe(*methods, base=base, seed=5)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1), steps=10)
    return recipe.loss(X, y, **given).detach(), F.softmax(model(X).detach(), 1)


def by_definition(p, y, alpha, beta, log_zero):
    """Both cross-entropies as sums over the classes, the labels clipped where their logarithm would be infinite."""
    label = F.one_hot(y, p.shape[1]).double()
    forward = -(label * p.log()).sum(1)
    reverse = -(p * label.clamp_min(math.exp(log_zero)).log()).sum(1)
    return alpha * forward + beta * reverse


@pytest.mark.parametrize(("alpha", "beta", "log_zero"), [(0.1, 1.0, -4.0), (6.0, 0.1, math.log(1e-4)), (0.0, 1.0, -1)])
def test_the_definition(alpha, beta, log_zero):
    loss, p = loss_of(tikhon.SymmetricCrossEntropy(alpha, beta, log_zero))
    torch.testing.assert_close(loss, by_definition(p, Y, alpha, beta, log_zero).mean(), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("total", [None, 6.0])
def test_class_weights_ignored_labels_and_soft_targets(total):
    method = tikhon.SymmetricCrossEntropy()
    _, p = loss_of()
    own, weight = by_definition(p, Y, 0.1, 1.0, -4.0), WEIGHT[Y]
    weighted, _ = loss_of(method, base=nn.CrossEntropyLoss(weight=WEIGHT), total=total and float(weight.sum()))
    torch.testing.assert_close(weighted, (weight * own).sum() / weight.sum(), rtol=1e-12, atol=0.0)
    kept = Y != 1
    some, _ = loss_of(method, y=torch.where(kept, Y, -100), total=total and float(kept.sum()))
    torch.testing.assert_close(some, own[kept].mean(), rtol=1e-12, atol=0.0)
    soft, _ = loss_of(method, y=SOFT, total=total)
    each = torch.stack([by_definition(p, torch.full((6,), k), 0.1, 1.0, -4.0) for k in range(3)], 1)
    torch.testing.assert_close(soft, (SOFT * each).sum(1).mean(), rtol=1e-12, atol=0.0)


def test_over_all_labels_the_reverse_part_is_constant():
    """Why it bears symmetric noise: a label drawn evenly adds a constant, whatever is predicted."""
    log_p = F.log_softmax(3.0 * torch.randn(7, 5, dtype=torch.float64), 1)
    torch.testing.assert_close(reverse_cross_entropy(log_p).sum(1), torch.full((7,), 16.0).double())


def test_weights_follow_their_schedules():
    method = tikhon.SymmetricCrossEntropy(
        alpha=tikhon.stepwise({0: 1.0, 1: 0.5}, by="step"), beta=tikhon.stepwise({0: 0.0, 1: 2.0}, by="step")
    )
    model = nn.Linear(4, 3).double()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    for alpha, beta in ((1.0, 0.0), (0.5, 2.0)):
        optimizer.zero_grad()
        loss, p = recipe.loss(X, Y), F.softmax(model(X).detach(), 1)
        torch.testing.assert_close(loss.detach(), by_definition(p, Y, alpha, beta, -4.0).mean(), rtol=1e-12, atol=0.0)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_certainty_and_impossibility_are_finite(dtype):
    scores = torch.tensor([[300.0, 0.0]], dtype=dtype, requires_grad=True)
    losses = reverse_cross_entropy(F.log_softmax(scores, 1))
    assert losses[0].tolist() == [0.0, 4.0]
    assert torch.autograd.grad(losses.sum(), scores)[0].isfinite().all()


def test_wrong_input_is_refused():
    with pytest.raises(tikhon.TikhonError, match="alpha must be"):
        tikhon.SymmetricCrossEntropy(alpha=-1.0)
    with pytest.raises(tikhon.TikhonError, match="log_zero must be"):
        tikhon.SymmetricCrossEntropy(log_zero=1.0)
    with pytest.raises(tikhon.TikhonError, match="sce needs class scores"):
        tikhon.Recipe(tikhon.SymmetricCrossEntropy(), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="there can be only one"):
        tikhon.Recipe(tikhon.SymmetricCrossEntropy(), tikhon.StableMax())
