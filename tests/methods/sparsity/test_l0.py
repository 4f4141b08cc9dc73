"""L0: the gates' distribution by sampling, the penalty by hand, evaluation without noise, and units that go."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.sparsity.l0 import chance_open, hard_concrete, mean_gate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3)
    )


def ready(model: nn.Module, rate: float = 0.1, **arguments: object):
    recipe = tikhon.Recipe(method := tikhon.L0(**arguments))
    recipe.prepare(model)
    gates = [one for name, one in model.named_parameters() if "log_alpha" in name]
    weights = [one for name, one in model.named_parameters() if "log_alpha" not in name]
    groups = [{"params": weights, "lr": 0.1}, {"params": gates, "lr": rate}]
    recipe.attach(optimizer := torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    return recipe, method, optimizer


def train(recipe, optimizer, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(32, 6, generator=generator)
        optimizer.zero_grad()
        recipe.loss(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()).backward()
        optimizer.step()
    return torch.randn(64, 6, generator=generator)


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 1.5])
def test_gates_are_open_as_often_as_is_said(log_alpha: float) -> None:
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = hard_concrete(torch.full_like(uniform, log_alpha), uniform)
    assert z.min() == 0.0
    assert z.max() == 1.0
    chance = chance_open(torch.tensor(log_alpha, dtype=torch.float64))
    torch.testing.assert_close((z > 0).double().mean(), chance, atol=4e-3, rtol=0.0)
    # the median of the gate is that for u = 1/2
    stretched = 1.2 / (1.0 + math.exp(-log_alpha / (2.0 / 3.0))) - 0.1
    torch.testing.assert_close(z.median(), torch.tensor(stretched, dtype=torch.float64).clamp(0, 1), atol=5e-3, rtol=0)


def test_gates_learn_through_their_noise() -> None:
    log_alpha = torch.zeros(1000, dtype=torch.float64, requires_grad=True)
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hard_concrete(log_alpha, uniform).sum().backward()
    inside = (hard_concrete(log_alpha, uniform) > 0) & (hard_concrete(log_alpha, uniform) < 1)
    assert (log_alpha.grad[inside] > 0).all()
    assert not log_alpha.grad[~inside].any()


def test_the_penalty_counts_weights_behind_open_gates() -> None:
    recipe, _, _ = ready(network(), strength=0.5, open_at_first=0.9)
    recipe.loss(torch.zeros(8, 6), torch.zeros(8, dtype=torch.int64))
    chance = 1 / (1 + math.exp(-(math.log(9) - 2 / 3 * math.log(0.1 / 1.1))))
    assert recipe.log()["loss/l0/open weights"] == pytest.approx((200 + 30) * chance, rel=1e-5)


def test_evaluation_has_no_noise_and_training_has() -> None:
    model = network()
    recipe, _, _ = ready(model)
    plain, x = network().eval(), torch.randn(5, 6)
    with torch.no_grad():  # all gates are at one half
        plain[2].weight.mul_(0.5)
        plain[5].weight.mul_(0.5)
    torch.testing.assert_close(model.eval()(x), plain(x))
    model.train()
    seen = set()
    for _ in range(3):
        recipe.loss(torch.randn(8, 6), torch.zeros(8, dtype=torch.int64))
        seen.add(float(model[2].weight.detach().sum()))
    assert len(seen) == 3
    assert torch.equal(model[2].weight, model[2].weight)  # between batches nothing is drawn


def test_units_go_and_the_answer_stays() -> None:
    model = network()
    recipe, method, optimizer = ready(model, rate=1.0, strength=3e-3)
    x = train(recipe, optimizer, 150)
    gates = mean_gate(model[2].parametrizations.weight[0].log_alpha.detach())
    with torch.no_grad():
        expected = model.eval()(x)
    model.train()
    exported = recipe.export().eval()
    assert exported[0].out_features == int((gates > 0).sum()) < 20
    assert exported[2].in_features == exported[0].out_features
    assert exported[3].num_features == exported[2].out_features < 10
    assert set(method.plan) <= {"0", "2"}
    with torch.no_grad():
        torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)
        labels = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        assert F.cross_entropy(exported(x), labels) < 0.6


def test_without_a_price_more_gates_stay_open() -> None:
    left = []
    for strength in (0.0, 3e-3):
        recipe, _, optimizer = ready(network(), rate=1.0, strength=strength)
        train(recipe, optimizer, 150)
        exported = recipe.export()
        left.append(exported[0].out_features + exported[2].out_features)
    assert left[1] < left[0]


def test_convolutions_are_gated_by_channel() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    recipe, _, _ = ready(model)
    gated = model[3].parametrizations.weight[0]
    assert gated.log_alpha.shape == (4,)
    with torch.no_grad():
        gated.log_alpha.copy_(torch.tensor([9.0, -9.0, 9.0, -9.0]))
        expected = model.eval()(torch.ones(2, 1, 6, 6))
    exported = recipe.export()
    assert exported[0].out_channels == 2
    torch.testing.assert_close(exported(torch.ones(2, 1, 6, 6)), expected)


def test_wrong_input() -> None:
    for arguments in ({"strength": -1.0}, {"open_at_first": 1.0}, {"open_at_first": tikhon.linear(0.1, 0.5)}):
        with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
            tikhon.L0(**arguments)
    with pytest.raises(tikhon.TikhonError, match="can remove no units"):
        tikhon.Recipe(tikhon.L0()).prepare(nn.Linear(3, 2))
    with pytest.raises(tikhon.TikhonError, match="plain weights"):
        tikhon.Recipe(tikhon.L0(), tikhon.WeightNorm())
