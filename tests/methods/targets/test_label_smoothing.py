"""Label smoothing against torch's own, and its order with MixUp."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.label_smoothing import smoothed

X = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 2, 1, 0])
WEIGHT = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)


def model_and_loss(*methods, y=Y, base=F.cross_entropy):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    recipe = tikhon.Recipe(*methods, base=base, seed=5)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    loss = recipe.loss(X, y)
    loss.backward()
    return model, loss


@pytest.mark.parametrize("amount", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("kind", ["labels", "ignored", "probabilities"])
def test_agrees_with_torch(amount, weight, kind):
    probabilities = torch.softmax(torch.randn(6, 3, dtype=torch.float64), 1)
    y = {"labels": Y, "ignored": torch.where(Y == 1, -100, Y), "probabilities": probabilities}[kind]
    base = nn.CrossEntropyLoss(weight=weight)
    model, loss = model_and_loss(tikhon.LabelSmoothing(amount), y=y, base=base)
    twin = nn.Linear(4, 3).double()
    twin.load_state_dict(model.state_dict())
    expected = F.cross_entropy(twin(X), y, weight, label_smoothing=amount)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(model.weight.grad, twin.weight.grad, rtol=1e-10, atol=1e-14)


def test_smoothing_of_the_base_loss_is_the_same():
    _, by_method = model_and_loss(tikhon.LabelSmoothing(0.2))
    _, by_base = model_and_loss(base=nn.CrossEntropyLoss(label_smoothing=0.2))
    _, plain = model_and_loss()
    torch.testing.assert_close(by_method, by_base, rtol=1e-12, atol=0.0)
    assert abs(by_method - plain) > 1e-3


def test_mixing_and_smoothing_commute():
    """The same bits in either listing order, and the loss of the mixed, then smoothed, targets."""
    _, first = model_and_loss(tikhon.MixUp(), tikhon.LabelSmoothing(0.3))
    _, second = model_and_loss(tikhon.LabelSmoothing(0.3), tikhon.MixUp())
    assert torch.equal(first, second)

    seen = []
    rows = torch.eye(6, dtype=torch.float64)
    model = nn.Linear(6, 3).double()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    recipe = tikhon.Recipe(tikhon.MixUp(), tikhon.LabelSmoothing(0.3), seed=5)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    loss = recipe.loss(rows, Y)
    one_hot = F.one_hot(Y, 3).double()
    mixed_first = smoothed(seen[0] @ one_hot, 0.3)
    smoothed_first = seen[0] @ smoothed(one_hot, 0.3)
    torch.testing.assert_close(loss, F.cross_entropy(model(seen[0]), mixed_first), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(model(seen[0]), smoothed_first), rtol=1e-12, atol=0.0)


def test_regression_is_refused():
    with pytest.raises(tikhon.TikhonError, match="label_smoothing needs class scores"):
        tikhon.Recipe(tikhon.LabelSmoothing(), base=F.mse_loss)


def test_strength_out_of_range_is_refused():
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.LabelSmoothing(1.5)
