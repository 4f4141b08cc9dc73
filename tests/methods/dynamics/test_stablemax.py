"""StableMax: the definition in exact arithmetic, gradients everywhere, class weights, and softmax collapse undone."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.dynamics.stablemax import log_s, log_stablemax, s


def exact_s(x):
    x = Fraction(x)
    return x + 1 if x >= 0 else 1 / (1 - x)


def exact_log_p(row):
    values = [exact_s(x) for x in row]
    return [math.log(value / sum(values)) for value in values]


POINTS = [-1e6, -3.5, -1.0, -0.0, 0.0, 0.25, 1.0, 7.0, 1e6]


def test_s_agrees_with_exact_arithmetic():
    expected = torch.tensor([float(exact_s(x)) for x in POINTS], dtype=torch.float64)
    torch.testing.assert_close(s(torch.tensor(POINTS, dtype=torch.float64)), expected, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(log_s(torch.tensor(POINTS, dtype=torch.float64)), expected.log(), rtol=1e-12, atol=1e-15)


def test_log_probabilities_agree_with_exact_arithmetic():
    rows = [[0.5, -2.0, 3.0], [1.0, 1.0, 1.0], [0.0, -1e4, 1e4]]
    expected = torch.tensor([exact_log_p(row) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(log_stablemax(torch.tensor(rows).double()), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(log_stablemax(torch.tensor(rows)).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", [s, log_s])
def test_slopes_are_finite_and_right_everywhere(function, dtype):
    """At 1.0 the branch not taken is 1 / 0; at 0.0 both branches meet with slope 1."""
    points = torch.tensor(POINTS, dtype=dtype, requires_grad=True)
    function(points).sum().backward()
    x = points.detach().double()
    below = (1 - x) ** -2 if function is s else 1 / (1 - x)
    above = torch.ones_like(x) if function is s else 1 / (1 + x)
    expected = torch.where(x >= 0, above, below)
    torch.testing.assert_close(points.grad.double(), expected, rtol={torch.bfloat16: 1e-2}.get(dtype, 1e-6), atol=0.0)


def test_gradcheck():
    logits = torch.tensor([[0.5, -2.0, 3.0], [1.0, 1.5, -0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_stablemax, logits)
    assert torch.autograd.gradgradcheck(log_stablemax, logits)
    assert torch.autograd.gradcheck(s, logits)


def loss_and_gradient(logits, y, *methods, base=F.cross_entropy):
    model = nn.Linear(1, logits.shape[1], bias=False).to(logits.dtype)
    recipe = tikhon.Recipe(*methods, base=base)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with torch.no_grad():
        model.weight.copy_(logits[0][:, None])
    loss = recipe.loss(torch.ones(1, 1, dtype=logits.dtype), y)
    loss.backward()
    return float(loss.detach()), model.weight.grad[:, 0]


def test_it_learns_where_the_softmax_in_float32_has_collapsed():
    logits, y = torch.tensor([[200.0, 0.0, -10.0]]), torch.tensor([0])
    loss, gradient = loss_and_gradient(logits, y)
    assert loss == 0.0
    assert not gradient.any()
    loss, gradient = loss_and_gradient(logits, y, tikhon.StableMax())
    assert loss == pytest.approx(-exact_log_p([200, 0, -10])[0], rel=1e-4)
    assert gradient[0] < 0 < gradient[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_class_weights_smoothing_and_soft_targets(dtype):
    logits = torch.tensor([[0.5, -2.0, 3.0]], dtype=dtype)
    weight = torch.tensor([1.0, 2.0, 0.5])
    log_p = torch.tensor(exact_log_p([0.5, -2.0, 3.0]), dtype=torch.float64)
    close = {"rel": 1e-5}
    base = nn.CrossEntropyLoss(weight=weight)
    hard, _ = loss_and_gradient(logits, torch.tensor([1]), tikhon.StableMax(), base=base)
    assert hard == pytest.approx(-float(log_p[1]), **close)  # one sample: its weight cancels
    q = torch.tensor([[0.25, 0.25, 0.5]], dtype=dtype)
    soft, _ = loss_and_gradient(logits, q, tikhon.StableMax(), base=base)
    assert soft == pytest.approx(-float((weight.double() * q.double() * log_p).sum()), **close)
    smooth, _ = loss_and_gradient(logits, torch.tensor([1]), tikhon.StableMax(), tikhon.LabelSmoothing(0.3))
    assert smooth == pytest.approx(
        -float(0.7 * log_p[1] + 0.1 * log_p.sum()), rel=1e-5 if dtype != torch.bfloat16 else 1e-2
    )


def test_other_methods_see_its_probabilities():
    """What ELR remembers are the probabilities of the loss function in force."""
    recipe = tikhon.Recipe(tikhon.StableMax(), tikhon.ELR(momentum=0.0))
    model = recipe.prepare(nn.Linear(1, 3).double(), samples=1)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    row = model(torch.ones(1, 1).double())[0].tolist()
    recipe.loss(torch.ones(1, 1).double(), torch.tensor([0]), index=torch.tensor([0]))
    remembered = recipe.methods["elr"].memory.read(torch.tensor([0]))
    torch.testing.assert_close(remembered, torch.tensor([exact_log_p(row)]).double().exp(), rtol=1e-6, atol=0.0)


def test_losses_without_a_softmax_are_refused():
    with pytest.raises(tikhon.TikhonError, match="stablemax needs class scores"):
        tikhon.Recipe(tikhon.StableMax(), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="log_probabilities"):
        tikhon.Recipe(tikhon.StableMax(), base=tikhon.ClassLoss(log_probabilities=lambda x: F.log_softmax(2 * x, 1)))
