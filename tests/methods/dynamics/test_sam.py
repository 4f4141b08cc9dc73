"""SAM against steps written by hand: on a quadratic, on a network, with momentum; weights return exactly."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.math.ascent import ascent_offsets

X = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def attached(model, method, lr=0.1, momentum=0.9, base=F.cross_entropy):
    recipe = tikhon.Recipe(method, base=base)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    recipe.attach(optimizer)
    return recipe, optimizer


def by_hand(model, optimizer, loss_of, radius):
    """One step: ascend, take the gradient there, come back, step with it."""
    optimizer.zero_grad()
    loss_of(model).backward()
    saved = [p.detach().clone() for p in model.parameters()]
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    norm = torch.sqrt(sum(g.square().sum() for g in gradients))
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradients, strict=True):
            p += radius * g / norm
    optimizer.zero_grad()
    loss = loss_of(model)
    loss.backward()
    with torch.no_grad():
        for p, old in zip(model.parameters(), saved, strict=True):
            p.copy_(old)
    optimizer.step()
    return loss.detach()


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Quadratic(nn.Module):
    """1/2 w^T A w for every row, with A given: its minimum and its gradient A w are known."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

    def forward(self, a):
        return 0.5 * torch.einsum("i,bij,j->b", self.w, a, self.w)


def test_a_step_on_a_quadratic_is_the_closed_form():
    a = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    model = Quadratic()
    w = model.w.detach().clone()
    recipe, optimizer = attached(model, tikhon.SAM(0.5), momentum=0.0, base=lambda output, target: output)
    loss = recipe.loss(a[None], torch.zeros(1))
    worst = w + 0.5 * (a @ w) / (a @ w).norm()
    assert float(loss.detach()) == pytest.approx(float(0.5 * worst @ a @ worst), rel=1e-12)
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(model.w.detach(), w - 0.1 * a @ worst, rtol=1e-12, atol=1e-14)


def test_training_a_network_agrees_with_steps_by_hand_and_momentum_is_kept():
    model, twin = network(), network()
    recipe, optimizer = attached(model, tikhon.SAM(0.3))
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    for _ in range(6):
        optimizer.zero_grad()
        loss = recipe.loss(X, Y)
        loss.backward()
        optimizer.step()
        expected = by_hand(twin, twin_optimizer, lambda one: F.cross_entropy(one(X), Y), 0.3)
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-11, atol=0.0)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
        mine, theirs = optimizer.state[p]["momentum_buffer"], twin_optimizer.state[q]["momentum_buffer"]
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_momentum_survives_a_resume():
    model = network()
    recipe, optimizer = attached(model, tikhon.SAM(0.3))

    def train(steps, recipe, optimizer):
        for _ in range(steps):
            optimizer.zero_grad()
            recipe.loss(X, Y).backward()
            optimizer.step()

    train(3, recipe, optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), recipe.state_dict()))
    train(3, recipe, optimizer)
    other = network()
    other_recipe, other_optimizer = attached(other, tikhon.SAM(0.3))
    other.load_state_dict(saved[0])
    other_optimizer.load_state_dict(saved[1])
    other_recipe.load_state_dict(saved[2])
    train(3, other_recipe, other_optimizer)
    assert same(weights(model), weights(other))


def test_weights_return_exactly_when_backward_ends():
    """0.1 + (w - 0.1) is not w: only a copy returns the same bits."""
    model = network().float()
    recipe, _ = attached(model, tikhon.SAM(0.1))
    before = weights(model)
    loss = recipe.loss(X.float(), Y)
    assert not same(weights(model), before)
    loss.backward()
    assert same(weights(model), before)


@pytest.mark.parametrize("event", ["next loss", "state_dict", "deployed", "detach", "step"])
def test_weights_return_where_the_second_gradient_never_comes(event):
    model = network()
    recipe, optimizer = attached(model, tikhon.SAM(0.1))
    before = weights(model)
    recipe.loss(X, Y)  # and no backward
    assert not same(weights(model), before)
    if event == "next loss":
        recipe.loss(X, Y).backward()
    elif event == "state_dict":
        recipe.state_dict()
    elif event == "deployed":
        with recipe.deployed():
            assert same(weights(model), before)
    elif event == "detach":
        recipe.detach()
    else:
        optimizer.step()
    assert same(weights(model), before)


def test_weights_return_after_an_exception_in_the_second_pass():
    model = network()
    recipe, _ = attached(model, tikhon.SAM(0.1))
    before, calls = weights(model), []

    def fail_on_second(module, args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("the second pass failed")

    model.register_forward_pre_hook(fail_on_second)
    with pytest.raises(RuntimeError, match="second pass failed"):
        recipe.loss(X, Y)
    assert same(weights(model), before)


def test_parameters_without_a_gradient_stay_where_they_are():
    """A branch that the loss does not reach has no gradient in either pass."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = network(), nn.Linear(4, 3).double()

        def forward(self, x):
            return self.used(x)

    model, twin = Branches(), Branches()
    twin.load_state_dict(model.state_dict())
    recipe, optimizer = attached(model, tikhon.SAM(0.3))
    idle = model.idle.weight.detach().clone()
    recipe.loss(X, Y).backward()
    optimizer.step()
    by_hand(twin, torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9), lambda one: F.cross_entropy(one(X), Y), 0.3)
    assert torch.equal(model.idle.weight, idle)
    assert model.idle.weight.grad is None
    torch.testing.assert_close(model.used[0].weight, twin.used[0].weight, rtol=1e-11, atol=1e-13)


def test_only_selected_parameters_are_perturbed():
    model = network()
    recipe, _ = attached(model, tikhon.SAM(0.3, where="2"))
    before = weights(model)
    recipe.loss(X, Y)
    moved = [not torch.equal(a, b) for a, b in zip(weights(model), before, strict=True)]
    assert moved == [False, False, True, True]


def test_offsets_have_the_radius_and_zero_gradients_give_none():
    offsets = ascent_offsets([torch.randn(3, 2).double(), torch.randn(4).double()], 0.7)
    assert float(torch.cat([one.flatten() for one in offsets]).norm()) == pytest.approx(0.7, rel=1e-12)
    assert not torch.stack(ascent_offsets([torch.zeros(3)], 0.7)).any()


@pytest.mark.parametrize("size", [1e-30, 1e-13, 1e-12, 1e-5, 1e12, 1e25])
def test_gradients_of_any_size_give_the_radius(size):
    """In float32 the square of 1e-30 is 0: divided by that norm, the offset would be immense."""
    offsets = ascent_offsets([size * torch.tensor([3.0]), size * torch.tensor([4.0, 0.0])], 0.5)
    torch.testing.assert_close(torch.cat(offsets), torch.tensor([0.3, 0.4, 0.0]))


def test_small_gradients_in_float16_do_not_overflow():
    """0.5 over their norm does. Below the smallest normal number the offset is shorter than the radius."""
    (offsets,) = ascent_offsets([torch.tensor([3e-6, 4e-6], dtype=torch.float16)], 0.5)
    assert 0.0 < float(offsets.norm()) <= 0.5


def test_a_negative_radius_is_refused():
    with pytest.raises(tikhon.TikhonError, match="radius"):
        tikhon.SAM(-0.1)
