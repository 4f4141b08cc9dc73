"""Focal loss against exact arithmetic and torch's cross-entropy, through every kind of target."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.focal_loss import focal_losses

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.tensor([0, 1, 2, 2, 1, 0])
SOFT = torch.softmax(torch.randn(6, 3, dtype=torch.float64, generator=GENERATOR), 1)
WEIGHT = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)


def loss_of(*methods, x=X, y=Y, base=F.cross_entropy, **given):
    """The loss of a small model, and the model's output."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    recipe = tikhon.Recipe(*methods, base=base, seed=5)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1), steps=10)
    return recipe.loss(x, y, **given).detach(), model(x).detach()


def by_hand(output, y, gamma, alpha=(1.0, 1.0, 1.0), weight=(1.0, 1.0, 1.0)):
    """The loss of every sample in Python's arithmetic, and what it counts."""
    losses, counts = [], []
    for row, label in zip(output.tolist(), y.tolist(), strict=True):
        p = math.exp(row[label]) / sum(math.exp(one) for one in row)
        losses.append(weight[label] * alpha[label] * -((1 - p) ** gamma) * math.log(p))
        counts.append(weight[label])
    return losses, counts


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_the_formula(gamma):
    loss, output = loss_of(tikhon.FocalLoss(gamma))
    assert float(loss) == pytest.approx(sum(by_hand(output, Y, gamma)[0]) / 6, rel=1e-12)


def test_alpha_multiplies_and_class_weights_of_the_base_also_divide():
    alpha, weight = (0.25, 2.0, 0.0), (1.0, 0.5, 3.0)
    loss, output = loss_of(tikhon.FocalLoss(2.0, alpha=alpha), base=nn.CrossEntropyLoss(weight=WEIGHT))
    losses, counts = by_hand(output, Y, 2.0, alpha, weight)
    assert float(loss) == pytest.approx(sum(losses) / sum(counts), rel=1e-12)


def test_ignored_labels_do_not_count():
    y = torch.where(Y == 1, -100, Y)
    loss, output = loss_of(tikhon.FocalLoss(), y=y)
    kept = y >= 0
    assert float(loss) == pytest.approx(sum(by_hand(output[kept], Y[kept], 2.0)[0]) / int(kept.sum()), rel=1e-12)


@pytest.mark.parametrize("total", [None, 6.0])
def test_a_soft_target_means_the_expected_loss(total):
    loss, output = loss_of(tikhon.FocalLoss(), y=SOFT, total=total)
    expected = sum(
        SOFT[i, k] * by_hand(output[i : i + 1], torch.tensor([k]), 2.0)[0][0] for i in range(6) for k in range(3)
    )
    assert float(loss) == pytest.approx(float(expected) / 6, rel=1e-12)


def test_mixed_and_smoothed_targets_mean_the_mix_of_the_losses():
    seen = []
    model = nn.Linear(6, 3).double()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    recipe = tikhon.Recipe(tikhon.FocalLoss(), tikhon.MixUp(), tikhon.LabelSmoothing(0.3), seed=5)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    loss = recipe.loss(torch.eye(6).double(), Y)
    shares = 0.7 * seen[0] @ F.one_hot(Y, 3).double() + 0.1
    assert float((shares > 0.11).sum(1).max()) == 2  # something was mixed
    output = model(seen[0]).detach()
    expected = sum(
        shares[i, k] * by_hand(output[i : i + 1], torch.tensor([k]), 2.0)[0][0] for i in range(6) for k in range(3)
    )
    assert float(loss.detach()) == pytest.approx(float(expected) / 6, rel=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_positions_inside_a_sample(soft):
    """Scores (B, K, L): without focus torch's own cross-entropy; the mean is over all positions."""
    y = torch.randint(3, (2, 5))
    y = F.one_hot(y, 3).movedim(-1, 1).double() if soft else y
    model = nn.Conv1d(4, 3, 1).double()
    recipe = tikhon.Recipe(tikhon.FocalLoss(0.0, alpha=[2.0, 2.0, 2.0]))
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(recipe.loss(x, y), 2.0 * F.cross_entropy(model(x), y), rtol=1e-12, atol=0.0)


def test_gamma_follows_its_schedule():
    method = tikhon.FocalLoss(gamma=tikhon.linear(0.0, 4.0))
    model = nn.Linear(4, 3).double()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, steps=4)
    for gamma in (0.0, 1.0, 2.0):
        optimizer.zero_grad()
        loss = recipe.loss(X, Y)
        assert float(loss.detach()) == pytest.approx(sum(by_hand(model(X).detach(), Y, gamma)[0]) / 6, rel=1e-12)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_certainty_and_impossibility_are_finite(gamma, dtype):
    """p = 1 and p as good as 0: the loss is 0, or cross-entropy's; gradients are finite."""
    scores = torch.tensor([[300.0, 0.0]], dtype=dtype, requires_grad=True)
    losses = focal_losses(F.log_softmax(scores, 1), gamma)
    assert losses[0].tolist() == [0.0, 300.0]
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert gradient.isfinite().all()


def test_probabilities_are_still_the_softmax():
    recipe = tikhon.Recipe(tikhon.FocalLoss())
    torch.testing.assert_close(recipe.probabilities(X), F.softmax(X, 1))


def test_wrong_input_is_refused():
    with pytest.raises(tikhon.TikhonError, match="alpha must be"):
        tikhon.FocalLoss(alpha=0.25)
    with pytest.raises(tikhon.TikhonError, match="alpha must be"):
        tikhon.FocalLoss(alpha=[1.0, -1.0])
    with pytest.raises(tikhon.TikhonError, match="alpha of 2 classes, the model 3"):
        loss_of(tikhon.FocalLoss(alpha=[1.0, 2.0]))
    with pytest.raises(tikhon.TikhonError, match="focal_loss needs class scores"):
        tikhon.Recipe(tikhon.FocalLoss(), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="there can be only one"):
        tikhon.Recipe(tikhon.FocalLoss(), tikhon.StableMax())
    with pytest.raises(tikhon.TikhonError, match="focal_loss takes the place of cross-entropy"):
        tikhon.Recipe(tikhon.FocalLoss(), base=tikhon.ClassLoss(per_class=lambda log_p: -log_p))
