"""L2: the closed form, and the optimizer's own weight decay."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.weights.l2 import half_squared_norm

X = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()


def trained(method, decay=0.0, decayed=None, steps=5):
    model = network()
    recipe = tikhon.Recipe(*([method] if method else []))
    recipe.prepare(model)
    chosen = [p for p in model.parameters() if decayed is None or p.ndim >= decayed]
    others = [p for p in model.parameters() if decayed is not None and p.ndim < decayed]
    groups = [{"params": chosen, "weight_decay": decay}, {"params": others}]
    optimizer = torch.optim.SGD([group for group in groups if group["params"]], lr=0.1, momentum=0.9)
    recipe.attach(optimizer, steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        optimizer.step()
    return model


def same(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_norm_agrees_with_numpy():
    tensors = [torch.randn(3, 4).double(), torch.randn(2).double()]
    expected = sum(0.5 * (one.numpy() ** 2).sum() for one in tensors)
    assert float(half_squared_norm(tensors)) == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda w: half_squared_norm([w]), torch.randn(3, dtype=torch.double).requires_grad_()
    )


def test_it_is_weight_decay_of_the_weights():
    same(trained(tikhon.L2(0.05)), trained(None, decay=0.05, decayed=2))


def test_with_every_parameter_it_is_weight_decay():
    same(trained(tikhon.L2(0.05, where="all")), trained(None, decay=0.05))


def test_it_acts():
    plain, decayed = trained(None), trained(tikhon.L2(0.5))
    assert decayed[0].weight.norm() < 0.9 * plain[0].weight.norm()


def test_a_schedule_is_followed():
    """Off in the first half and on in the second, as a loop by hand."""
    model = trained(tikhon.L2(tikhon.stepwise({0.0: 0.0, 0.5: 0.2})), steps=4)
    twin = network()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    for step in range(4):
        optimizer.zero_grad()
        penalty = 0.1 * (twin[0].weight.square().sum() + twin[3].weight.square().sum())
        (F.cross_entropy(twin(X), Y) + (penalty if step >= 2 else 0.0)).backward()
        optimizer.step()
    same(model, twin)


def test_a_selection_that_matches_nothing_is_refused():
    with pytest.raises(tikhon.TikhonError, match=r"0\.weight"):
        tikhon.Recipe(tikhon.L2(0.1, where="0.wight")).prepare(network())


def test_a_negative_strength_is_refused():
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.L2(-0.1)
