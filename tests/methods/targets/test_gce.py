"""Generalised cross-entropy between its two limits, and through every kind of target."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.gce import gce_losses

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


def test_at_one_it_is_half_the_absolute_error():
    loss, p = loss_of(tikhon.GeneralisedCrossEntropy(q=1.0))
    expected = (F.one_hot(Y, 3) - p).abs().sum(1).mean() / 2
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)


def test_towards_zero_it_is_cross_entropy():
    expected, _ = loss_of()
    torch.testing.assert_close(loss_of(tikhon.GeneralisedCrossEntropy(q=0.0))[0], expected, rtol=0.0, atol=0.0)
    torch.testing.assert_close(loss_of(tikhon.GeneralisedCrossEntropy(q=1e-9))[0], expected, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("total", [None, 6.0])
def test_class_weights_ignored_labels_and_soft_targets(total):
    method = tikhon.GeneralisedCrossEntropy(q=0.7)
    _, p = loss_of()
    losses = (1 - p**0.7) / 0.7
    weight = WEIGHT[Y]
    weighted, _ = loss_of(method, base=nn.CrossEntropyLoss(weight=WEIGHT), total=total and float(weight.sum()))
    own = losses[torch.arange(6), Y]
    torch.testing.assert_close(weighted, (weight * own).sum() / weight.sum(), rtol=1e-12, atol=0.0)
    kept = Y != 1
    some, _ = loss_of(method, y=torch.where(kept, Y, -100), total=total and float(kept.sum()))
    torch.testing.assert_close(some, own[kept].mean(), rtol=1e-12, atol=0.0)
    soft, _ = loss_of(method, y=SOFT, total=total)
    torch.testing.assert_close(soft, (SOFT * losses).sum(1).mean(), rtol=1e-12, atol=0.0)


def test_its_gradient_is_cross_entropys_times_the_probability():
    scores = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    log_p = F.log_softmax(scores, 1)[:, 0]
    (own,) = torch.autograd.grad(gce_losses(log_p, 0.7).sum(), scores, retain_graph=True)
    (plain,) = torch.autograd.grad(-log_p.sum(), scores)
    torch.testing.assert_close(own, plain * (log_p.detach().exp() ** 0.7)[:, None], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("q", [0.0, 0.7, 1.0])
def test_below_the_threshold_a_label_teaches_nothing(q):
    p = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    losses = gce_losses(p.log(), q, threshold=0.4)
    limit = -torch.log(torch.tensor(0.4)) if q == 0.0 else (1 - 0.4**q) / q
    assert float(losses[0].detach()) == pytest.approx(float(limit), rel=1e-6)
    torch.testing.assert_close(losses[1:], gce_losses(p.log(), q)[1:])
    (gradient,) = torch.autograd.grad(losses.sum(), p)
    assert gradient[0] == 0.0
    assert (gradient[1:] < 0.0).all()


def test_the_threshold_follows_its_schedule():
    method = tikhon.GeneralisedCrossEntropy(threshold=tikhon.stepwise({0: 0.0, 1: 0.999}, by="step"))
    model = nn.Linear(4, 3).double()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    for learns in (True, False):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        assert bool(model.weight.grad.any()) == learns
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_certainty_and_impossibility_are_finite(dtype):
    scores = torch.tensor([[300.0, 0.0]], dtype=dtype, requires_grad=True)
    losses = gce_losses(F.log_softmax(scores, 1), 0.5)
    assert losses[0].tolist() == [0.0, 2.0]
    assert torch.autograd.grad(losses.sum(), scores)[0].isfinite().all()


def test_wrong_input_is_refused():
    with pytest.raises(tikhon.TikhonError, match="q must be"):
        tikhon.GeneralisedCrossEntropy(q=1.5)
    with pytest.raises(tikhon.TikhonError, match="threshold must be"):
        tikhon.GeneralisedCrossEntropy(threshold=-0.1)
    with pytest.raises(tikhon.TikhonError, match="gce needs class scores"):
        tikhon.Recipe(tikhon.GeneralisedCrossEntropy(), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="there can be only one"):
        tikhon.Recipe(tikhon.GeneralisedCrossEntropy(), tikhon.StableMax())
