"""Virtual adversarial training: the Hessian's first eigenvector, the term by hand, unlabelled inputs, rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.math.distillation import softmax_divergence
from tikhon.methods.robust.vat import virtual_adversarial_direction

X = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def attached(model, *methods):
    recipe = tikhon.Recipe(*methods)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    return recipe, optimizer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def seen_by(model):
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


def top_directions(model, inputs):
    """First eigenvectors of the Hessian of the divergence, by torch's full Hessians."""
    found = []
    for x in inputs:
        clean = model(x[None]).detach()

        def divergence(r, x=x, clean=clean):
            return softmax_divergence(clean, model((x + r)[None]))[0]

        hessian = torch.autograd.functional.hessian(divergence, torch.zeros_like(x))
        found.append(torch.linalg.eigh(hessian).eigenvectors[:, -1])
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_power_iteration_finds_the_first_eigenvector(dtype):
    model, inputs = network(), X[:4]
    expected = top_directions(model, inputs).to(dtype)
    model, inputs = model.to(dtype), inputs.to(dtype)
    clean = model(inputs).detach()
    found = virtual_adversarial_direction(
        lambda r: softmax_divergence(clean, model(inputs + r)), torch.ones_like(inputs), 1e-3, 50
    )
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4, dtype=dtype))
    assert (found * expected).sum(1).abs().min() > 0.99


def test_the_divergence_is_torchs():
    other = torch.randn(16, 3, dtype=torch.float64)
    scores = network()(X)
    expected = F.kl_div(other.log_softmax(1), scores.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(softmax_divergence(scores, other), expected)


def test_loss_and_gradients_are_those_at_the_worst_inputs():
    model = network()
    recipe, _ = attached(model, tikhon.VirtualAdversarialTraining(eps=0.5, strength=2.0, iterations=3))
    seen = seen_by(model)
    loss = recipe.loss(X, Y)
    loss.backward()
    assert len(seen) == 1 + 3 + 1
    worst = seen[-1]
    torch.testing.assert_close((worst - X).norm(dim=1), 0.5 * torch.ones(16, dtype=torch.float64))
    fixed = model(X).detach()  # no gradient through the clean prediction
    expected = F.cross_entropy(model(X), Y) + 2.0 * F.kl_div(
        model(worst).log_softmax(1), fixed.softmax(1), reduction="batchmean"
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    found = [one.grad.clone() for one in model.parameters()]
    for one, other in zip(found, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_unlabelled_inputs_take_the_place_of_the_batch():
    model = network()
    pool = 5.0 + torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    recipe, optimizer = attached(model, tikhon.VirtualAdversarialTraining(eps=0.5, unlabelled=pool, count=7))
    seen = seen_by(model)
    loss = recipe.loss(X, Y)
    assert [len(one) for one in seen] == [16, 7, 7, 7]
    assert all(any(torch.equal(row, other) for other in pool) for row in seen[1])
    expected = F.cross_entropy(model(X), Y) + softmax_divergence(model(seen[1]), model(seen[3])).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    optimizer.step()
    recipe.loss(X, Y)
    assert not torch.equal(seen[1], seen[-3])


def test_a_flat_network_gives_zero_and_no_nan():
    model = nn.Linear(4, 3).double()
    nn.init.zeros_(model.weight)
    recipe, _ = attached(model, tikhon.VirtualAdversarialTraining())
    loss = recipe.loss(X, Y)
    loss.backward()
    assert loss.item() == pytest.approx(F.cross_entropy(model(X), Y).item(), rel=1e-12)
    assert model.weight.grad.isfinite().all()


@pytest.mark.parametrize("arguments", [{"eps": -1.0}, {"strength": -1.0}, {"xi": 0.0}, {"iterations": 0}, {"count": 0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.VirtualAdversarialTraining(**arguments)
