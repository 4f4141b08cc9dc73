"""Policy noise masks: torch's beta distribution, an enumerated policy gradient, the masks seen, and what is learned."""

from __future__ import annotations

import math
from itertools import product

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.stochastic.policy_noise_mask import LIMIT, POLICY, beta_log_density, policy_losses, spread


def ready(method, model=None, optimize=None):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    leaves = [model.get_parameter(name) for name in POLICY] if optimize == "policy" else model.parameters()
    optimizer = torch.optim.Adam(leaves, lr=0.02)
    recipe.attach(optimizer, steps=100)
    return recipe, model, optimizer


def seen_by(model):
    """What the model was called with."""
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


def test_the_density_is_torchs() -> None:
    mask, alpha, beta = (torch.rand(50, dtype=torch.float64) * top + 1e-3 for top in (0.99, 5.0, 5.0))
    expected = torch.distributions.Beta(alpha, beta).log_prob(mask)
    torch.testing.assert_close(beta_log_density(mask, alpha, beta), expected)


def test_the_gradient_is_the_enumerated_one() -> None:
    """Two samples, a Bernoulli policy: the expected gradient, over all four pairs of masks, up to (1 - 1 / B)."""
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    cost = torch.tensor([2.0, 0.5], dtype=torch.float64)
    chances = torch.stack([1.0 - logit.sigmoid(), logit.sigmoid()])
    (exact,) = torch.autograd.grad((chances * cost).sum(), logit, retain_graph=True)
    expected = torch.zeros((), dtype=torch.float64)
    for pair in product([0, 1], repeat=2):
        drawn = torch.tensor(pair)
        loss = policy_losses(chances[drawn].log(), cost[drawn]).mean()
        (gradient,) = torch.autograd.grad(loss, logit, retain_graph=True)
        expected += chances[drawn].prod().detach() * gradient
    torch.testing.assert_close(expected, 0.5 * exact)


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_the_model_sees_the_image_times_the_mask(strength) -> None:
    recipe, model, _ = ready(tikhon.PolicyNoiseMask(strength, grid=(4, 4)))
    seen = seen_by(model)
    images = torch.ones(300, 1, 4, 4, dtype=torch.float64)
    before = images.clone()
    recipe.loss(images, torch.zeros(300, dtype=torch.int64))
    assert torch.equal(images, before)
    masks = 1.0 - (1.0 - seen[0]) / strength
    assert ((masks > 0.0) & (masks < 1.0)).all()
    shape = math.exp(LIMIT * math.tanh(0.5 / LIMIT))  # of the untrained policy, for every image
    assert scipy.stats.kstest(masks.flatten().numpy(), scipy.stats.beta(shape, shape).cdf).pvalue > 1e-3
    assert len(masks.unique()) == masks.numel()


def test_coarse_masks_are_interpolated() -> None:
    mask = torch.rand(2, 3, 3, dtype=torch.float64)
    expected = F.interpolate(mask[:, None], size=(6, 8), mode="bilinear")
    torch.testing.assert_close(spread(mask, (6, 8)), expected)
    assert spread(torch.rand(2, 4), (10,)).shape == (2, 1, 10)
    assert spread(torch.rand(2, 2, 2, 2), (4, 4, 4)).shape == (2, 1, 4, 4, 4)


def test_the_policy_learns_to_show_what_tells_the_class() -> None:
    """A fixed classifier reads the first cell and is misled by the last: masks come to keep the one, dim the other."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[3.0, 0.0, 0.0, -3.0], [-3.0, 0.0, 0.0, 3.0]]))
    recipe, model, optimizer = ready(tikhon.PolicyNoiseMask(1.0, grid=(2, 2)), model, optimize="policy")
    seen = seen_by(model)
    images, labels = torch.ones(64, 1, 2, 2, dtype=torch.float64), torch.zeros(64, dtype=torch.int64)
    for _ in range(100):
        optimizer.zero_grad()
        recipe.loss(images, labels).backward()
        optimizer.step()
    early, late = torch.stack(seen[:10]).mean((0, 1, 2)), torch.stack(seen[-10:]).mean((0, 1, 2))
    assert late[0, 0] > early[0, 0] + 0.2
    assert late[1, 1] < early[1, 1] - 0.2


def test_masks_end_before_training_does_and_nothing_is_left() -> None:
    recipe, model, optimizer = ready(tikhon.PolicyNoiseMask())
    seen = seen_by(model)
    images = torch.rand(4, 1, 4, 4, dtype=torch.float64)
    for _ in range(100):
        optimizer.zero_grad()
        recipe.loss(images, torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    clean = [torch.equal(one, images) for one in seen]
    assert clean == [False] * 90 + [True] * 10
    exported = recipe.export()
    assert not any(hasattr(exported, name) for name in POLICY)


@pytest.mark.parametrize("autocast", [False, True])
def test_it_goes_with_a_second_pass_and_with_autocast(autocast) -> None:
    recipe = tikhon.Recipe(tikhon.PolicyNoiseMask(1.0), tikhon.SAM(0.05))
    model = recipe.prepare(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    before = model.get_parameter(POLICY[3]).detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = recipe.loss(torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
        loss.backward()
        optimizer.step()
    assert not torch.equal(model.get_parameter(POLICY[3]), before)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="such as"):
        tikhon.PolicyNoiseMask(grid=(0, 4))
    recipe, _, _ = ready(tikhon.PolicyNoiseMask(grid=(4,)))
    with pytest.raises(TikhonError, match=r"grid=\(4,\) has, not \(2, 1, 4, 4\)"):
        recipe.loss(torch.rand(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1]))
    recipe = tikhon.Recipe(tikhon.PolicyNoiseMask())
    model = recipe.prepare(nn.Linear(2, 2))
    with pytest.raises(TikhonError, match="how long training is"):
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
