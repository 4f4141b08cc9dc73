"""AdaMixUp: mixtures against numpy, the loss against its definition, what the networks learn, and what is left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.mixing.adamixup import INTRUSION, POLICY, intrusion_losses, mixed_by_row, policy_share

ROWS, CLASSES = 6, 3


def ready(method, model=None, **recipe):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(ROWS, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    built = tikhon.Recipe(method, **recipe)
    built.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    built.attach(optimizer)
    return built, model, optimizer


def seen_by(model):
    """What the model was called with."""
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


def rows():
    return torch.eye(ROWS, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0])


def test_mixtures_agree_with_numpy() -> None:
    x, share = torch.randn(5, 2, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    permutation = torch.tensor([4, 2, 1, 3, 0])
    weight = share.numpy()[:, None, None]
    expected = weight * x.numpy() + (1 - weight) * x.numpy()[permutation.numpy()]
    np.testing.assert_allclose(mixed_by_row(x, permutation, share).numpy(), expected, rtol=1e-12, atol=1e-15)


def test_the_share_is_uniform_in_the_learned_interval() -> None:
    scores, draws = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    low, width = scores.exp()[:, 0] / scores.exp().sum(1), scores.exp()[:, 1] / scores.exp().sum(1)
    torch.testing.assert_close(policy_share(scores, draws), low + draws * width)
    # All of the softmax on the width is MixUp with alpha = 1: the share is the draw itself.
    certain = torch.tensor([[-100.0, 100.0, -100.0]], dtype=torch.float64).expand(4, 3)
    torch.testing.assert_close(policy_share(certain, draws), draws)


def test_the_discriminators_loss_is_the_binary_cross_entropy() -> None:
    real, mixed = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones_like(real), reduction="none")
    expected = expected + F.binary_cross_entropy_with_logits(mixed, torch.zeros_like(mixed), reduction="none")
    torch.testing.assert_close(intrusion_losses(real, mixed), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_sum_of_the_three(weighted) -> None:
    """One-hot inputs show which rows were mixed and with which share."""
    recipe, model, _ = ready(tikhon.AdaMixUp(strength=0.7, intrusion=0.3))
    seen = seen_by(model)
    x, y = rows()
    weight = torch.arange(1.0, ROWS + 1, dtype=torch.float64) if weighted else torch.ones(ROWS, dtype=torch.float64)
    loss = recipe.loss(x, y, weight=weight if weighted else None)
    mixed = seen[1]
    assert torch.equal(seen[0], x)
    own = mixed.diagonal()[mixed.diagonal() < 1.0]  # 1 where a row met itself
    assert ((own > 1 / 3) & (own < 2 / 3)).all()
    assert len(own) > 2
    log_probabilities = model(mixed).log_softmax(1)
    losses = -(mixed * weight * log_probabilities[:, y]).sum(1)
    body = model[:2]
    judge = [model.get_parameter(name) for name in INTRUSION]
    judged = intrusion_losses(F.linear(body(x), *judge)[:, 0], F.linear(body(mixed), *judge)[:, 0])
    expected = (F.cross_entropy(model(x), y, reduction="none") * weight).sum() / weight.sum()
    expected = expected + 0.7 * losses.sum() / (mixed @ weight).sum() + 0.3 * (judged * weight).sum() / weight.sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)


def test_the_policy_learns_from_both_losses_and_moves_no_feature() -> None:
    x, y = rows()
    for strengths in ({"strength": 1.0, "intrusion": 0.0}, {"strength": 0.0, "intrusion": 1.0}):
        recipe, model, _ = ready(tikhon.AdaMixUp(**strengths))
        recipe.loss(x, y).backward()
        assert model.get_parameter(POLICY[2]).grad.abs().sum() > 0.0
    recipe, model, _ = ready(tikhon.AdaMixUp(0.0, 0.0))
    recipe.loss(x, y).backward()
    assert model.get_parameter(POLICY[2]).grad is None


def test_mixtures_come_to_keep_away_from_a_class_in_between() -> None:
    """Points of one class at -1 and 1, of the other at 0: half and half of a pair of the first is an intrusion."""
    model = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)).double()
    recipe, model, optimizer = ready(tikhon.AdaMixUp(), model)
    x = torch.tensor([[-1.0], [1.0], [0.0]], dtype=torch.float64).repeat(20, 1)
    y = torch.tensor([0, 0, 1]).repeat(20)
    seen = seen_by(model)
    distances = []
    for _ in range(300):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
        met = (seen[-1] - x)[x != 0.0].abs() > 1e-9
        distances.append(seen[-1][x != 0.0][met].abs().mean())
    assert torch.stack(distances[-50:]).mean() > torch.stack(distances[:50]).mean() + 0.1


def test_nothing_is_left_and_the_callers_generator_is_left_alone() -> None:
    recipe, model, _ = ready(tikhon.AdaMixUp())
    assert all(hasattr(model, name) for name in POLICY + INTRUSION)
    exported = recipe.export()
    assert not any(hasattr(exported, name) for name in POLICY + INTRUSION)
    torch.manual_seed(0)
    expected = torch.rand(1)
    model = nn.Sequential(nn.Linear(ROWS, CLASSES))
    torch.manual_seed(0)
    tikhon.Recipe(tikhon.AdaMixUp()).prepare(model)
    assert torch.equal(torch.rand(1), expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"nn\.Linear"):
        ready(tikhon.AdaMixUp(at="1"))
    recipe, _, _ = ready(tikhon.AdaMixUp(), nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2)))
    with pytest.raises(TikhonError, match="token ids"):
        recipe.loss(torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, dtype=torch.int64))
    recipe, _, _ = ready(tikhon.AdaMixUp(at="0"), nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(8, 2)))
    with pytest.raises(TikhonError, match=r"\(5, 2, 3\) for 5 samples"):
        recipe.loss(torch.zeros(5, 2, 3), torch.zeros(5, dtype=torch.int64))
