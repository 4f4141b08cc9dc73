"""Preference losses: divergences by numerical differentiation, analytic gradients, edges, and wrong shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.math.preferences import sequence_log_probabilities
from tikhon.methods.preference.f_dpo import f_dpo_losses, implicit_reward
from tikhon.methods.preference.flex_dpo import flex_dpo_losses
from tikhon.methods.preference.mapo import likelihood_score, mapo_losses

GENERATORS = {
    "reverse_kl": lambda u: u * math.log(u),
    "forward_kl": lambda u: -math.log(u),
    "js": lambda u: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
    "alpha": lambda u: (u**0.7 - 0.7 * u - 0.3) / (0.7 * (0.7 - 1)),
}
"""f of every divergence; alpha = 0.3."""


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("divergence", GENERATORS)
def test_the_implicit_reward_is_the_derivative_of_the_divergence_up_to_a_constant(divergence) -> None:
    f = GENERATORS[divergence]

    def slope(u):
        return (f(u + 1e-6) - f(u - 1e-6)) / 2e-6

    found = implicit_reward(torch.tensor([math.log(0.5), math.log(3.0)], dtype=torch.float64), divergence, 0.3)
    assert (found[1] - found[0]).item() == pytest.approx(slope(3.0) - slope(0.5), rel=1e-6)


def test_alpha_lies_between_both_kl() -> None:
    ratios = drawn(20)
    torch.testing.assert_close(implicit_reward(ratios, "alpha", 1e-6), ratios, rtol=1e-4, atol=1e-4)
    forward = implicit_reward(ratios, "forward_kl")
    torch.testing.assert_close(implicit_reward(ratios, "alpha", 1.0), forward + 1.0)


@pytest.mark.parametrize("divergence", GENERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_stay_finite(divergence, dtype) -> None:
    ratios = torch.tensor([[-5000.0, 5000.0], [5000.0, -5000.0], [0.0, -300.0]], dtype=dtype, requires_grad=True)
    losses = f_dpo_losses(ratios, 0.1, divergence)
    assert losses.isfinite().all()
    losses.sum().backward()
    assert ratios.grad.isfinite().all()


def test_rewards_of_the_optimal_policy_are_the_true_ones() -> None:
    """pi* ~ ref (f')^-1 of the reward: for the reverse KL a tilt, found here by maximising E[r] - beta KL."""
    reward, reference, beta = drawn(6), drawn(6).softmax(0), 0.5
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16)

    def objective():
        optimizer.zero_grad()
        policy = logits.softmax(0)
        value = beta * (policy * (policy / reference).log()).sum() - (policy * reward).sum()
        value.backward()
        return value

    optimizer.step(objective)
    implied = beta * implicit_reward((logits.softmax(0) / reference).log().detach())
    torch.testing.assert_close(implied - implied[0], reward - reward[0], rtol=1e-4, atol=1e-5)


def test_flexible_dpo_is_dpo_with_equal_betas_and_pushes_less_otherwise() -> None:
    ratios = drawn(7, 2).requires_grad_()
    torch.testing.assert_close(flex_dpo_losses(ratios, 0.3, 0.3), f_dpo_losses(ratios, 0.3))
    (gradient,) = torch.autograd.grad(flex_dpo_losses(ratios, 0.4, 0.1).sum(), ratios)
    torch.testing.assert_close(gradient[:, 1], -0.25 * gradient[:, 0])
    margin = 0.4 * ratios[:, 0] - 0.1 * ratios[:, 1]
    torch.testing.assert_close(gradient[:, 0], -0.4 * torch.sigmoid(-margin).detach())


def test_the_likelihood_term_is_that_of_the_chosen_answer() -> None:
    policy, reference = -drawn(5, 2).abs(), -drawn(5, 2).abs()
    losses = [recipe_loss(tikhon.FlexDPO(0.1, 0.05, sft=sft), policy, reference) for sft in (0.0, 0.5)]
    torch.testing.assert_close(losses[1] - losses[0], -0.5 * policy[:, 0].mean())


def recipe_loss(method, output, target):
    model = nn.Identity()
    model.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    recipe = tikhon.Recipe(method, base=F.mse_loss)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1), steps=10)
    return recipe.loss(output, target)


def test_beta_may_be_a_schedule() -> None:
    policy, reference = drawn(5, 2), torch.zeros(5, 2, dtype=torch.float64)
    found = recipe_loss(tikhon.FDPO(tikhon.linear(0.7, 0.1)), policy, reference)
    torch.testing.assert_close(found, f_dpo_losses(policy, 0.7).mean())


def test_no_error_has_score_one_and_a_finite_gradient() -> None:
    errors = torch.tensor([0.0, 1e-6, 1e-3, 1.0, 1e4], dtype=torch.float64, requires_grad=True)
    scores = likelihood_score(errors, 0.5)
    exact = [1.0] + [0.5 * m / math.expm1(min(0.5 * m, 700.0)) for m in (1e-6, 1e-3, 1.0, 1e4)]
    torch.testing.assert_close(scores.detach(), torch.tensor(exact, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(scores.sum(), errors)
    assert gradient[0].item() == pytest.approx(-0.25)
    assert gradient.isfinite().all()


def test_without_margin_chosen_samples_are_fitted() -> None:
    errors = drawn(6, 2).abs()
    torch.testing.assert_close(mapo_losses(errors, beta=0.0), errors[:, 0])
    assert (mapo_losses(errors.flip(1)) - errors[:, 1] != mapo_losses(errors) - errors[:, 0]).all()


def test_sequences_count_the_answers_tokens_alone() -> None:
    logits, labels = drawn(2, 4, 5), torch.tensor([[1, 2, 3, 4], [0, 0, 1, 1]])
    counted = torch.tensor([[False, True, True, False], [True, True, True, True]])
    found = sequence_log_probabilities(logits, labels, counted)
    for i in range(2):
        expected = sum(logits[i, t].log_softmax(0)[labels[i, t]] for t in range(4) if counted[i, t])
        assert found[i].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("method", [tikhon.FDPO(), tikhon.FlexDPO(), tikhon.MaPO()])
def test_what_is_no_pair_is_refused(method) -> None:
    with pytest.raises(TikhonError, match="compares pairs"):
        recipe_loss(method, torch.zeros(4, 3).double(), torch.zeros(4, 3).double())
    with pytest.raises(TikhonError, match="values"):
        tikhon.Recipe(method)


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(TikhonError, match="'kl'"):
        tikhon.FDPO(divergence="kl")
    with pytest.raises(TikhonError, match="'kl'"):
        implicit_reward(torch.zeros(2), "kl")
    with pytest.raises(TikhonError, match="timesteps"):
        tikhon.MaPO(timesteps=0)
