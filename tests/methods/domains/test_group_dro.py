"""Group DRO: Algorithm 1 by a loop, denominators, absent groups, and a rare group that plain training gives up."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.group_dro import raised_weights


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(domains, base=F.cross_entropy, extra=(), **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(tikhon.GroupDRO(domains, **arguments), *extra, base=base)
    recipe.prepare(model, samples=max(len(domains), 20))
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model, optimizer


def test_three_steps_are_those_of_algorithm_1() -> None:
    x, y, ids = drawn(20, 4), torch.arange(20) % 3, torch.randperm(20, generator=torch.Generator().manual_seed(1))
    domains = torch.tensor([0, 0, 0, 1, 2] * 4)
    recipe, model, optimizer = ready(domains, eta=0.7, adjustment=0.5)
    q = torch.ones(3, dtype=torch.float64) / 3
    for _ in range(3):
        optimizer.zero_grad()
        loss = recipe.loss(x[ids], y[ids], index=ids)
        loss.backward()
        risks = torch.stack([F.cross_entropy(model(x[domains == e]), y[domains == e]) for e in range(3)])
        margins = 0.5 / torch.tensor([12.0, 4.0, 4.0], dtype=torch.float64).sqrt()
        q = q * (0.7 * (risks.detach() + margins)).exp()
        q = q / q.sum()
        torch.testing.assert_close(loss, q @ risks)
        expected = torch.autograd.grad(q @ risks, list(model.parameters()))
        for one, other in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(one.grad, other)
        optimizer.step()
    torch.testing.assert_close(recipe.methods["group_dro"].log_weights.table[0].exp(), q)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mass_of_a_batch_stays_what_it_was(weighted) -> None:
    x, y, domains = drawn(20, 4), torch.arange(20) % 3, torch.tensor([0, 0, 0, 1, 2] * 4)
    weight = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) if weighted else None
    total = 20.0 if weight is None else float(weight.sum())
    losses = []
    for given in (None, total):
        recipe, _, _ = ready(domains, eta=1.0)
        losses.append(recipe.loss(x, y, index=torch.arange(20), weight=weight, total=given))
    torch.testing.assert_close(losses[0], losses[1])


def test_weights_move_with_steps_that_happen_and_an_absent_group_is_not_raised() -> None:
    x, y, domains = drawn(20, 4), torch.arange(20) % 3, torch.arange(20) // 10
    recipe, model, optimizer = ready(domains, eta=1.0)
    loss = recipe.loss(x[:10], y[:10], index=torch.arange(10))
    torch.testing.assert_close(loss, F.cross_entropy(model(x[:10]), y[:10]))
    loss.backward()
    assert not recipe.methods["group_dro"].log_weights.table.any()
    risk = loss.detach()
    optimizer.step()
    q = recipe.methods["group_dro"].log_weights.table[0].exp()
    torch.testing.assert_close(q, torch.stack([risk, torch.zeros_like(risk)]).softmax(0))


def test_one_group_is_plain_training_and_large_losses_stay_finite() -> None:
    assert raised_weights(torch.zeros(2), torch.tensor([1e6, 0.0]), 1.0).tolist() == [0.0, -1e6]
    x, y = drawn(20, 4), torch.arange(20) % 3
    recipe, model, _ = ready(torch.zeros(20, dtype=torch.int64), eta=5.0)
    torch.testing.assert_close(recipe.loss(x, y, index=torch.arange(20)), F.cross_entropy(model(x), y))


def test_label_smoothing_and_mixing_go_with_it() -> None:
    extra = (tikhon.MixUp(), tikhon.LabelSmoothing(0.1))
    recipe, model, _ = ready(torch.arange(20) % 2, extra=extra, eta=1.0)
    recipe.loss(drawn(20, 4), torch.arange(20) % 3, index=torch.arange(20)).backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


def test_a_rare_group_is_fitted_that_plain_training_gives_up() -> None:
    x = torch.tensor([[1.0]] * 95 + [[1.0]] * 5)
    y = torch.tensor([0.0] * 95 + [1.0] * 5)[:, None]  # the two groups want different values of the same input
    found = []
    for method in ((), (tikhon.GroupDRO((torch.arange(100) >= 95).long(), eta=0.5),)):
        model = nn.Linear(1, 1)
        recipe = tikhon.Recipe(*method, base=F.mse_loss)
        recipe.prepare(model, samples=100)
        recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in range(200):
            optimizer.zero_grad()
            recipe.loss(x, y, index=torch.arange(100)).backward()
            optimizer.step()
        found.append(float(model(x[:1]).detach()))
    assert found[0] == pytest.approx(0.05, abs=0.01)  # the mean
    assert found[1] == pytest.approx(0.5, abs=0.01)  # where both groups have the same loss


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="of integers"):
        tikhon.GroupDRO(torch.zeros(4))
    with pytest.raises(TikhonError, match="eta"):
        tikhon.GroupDRO(torch.tensor([0, 1]), eta=-1.0)
    recipe, _, _ = ready(torch.tensor([0, 1]))
    with pytest.raises(TikhonError, match="group_dro knows the domains of 2 samples"):
        recipe.loss(drawn(3, 4), torch.tensor([0, 1, 0]), index=torch.tensor([0, 1, 2]))
