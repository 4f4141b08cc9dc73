"""f-DPO against the official losses: loss, implicit reward and gradients of all four divergences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

import tikhon
from tikhon.methods.preference.f_dpo import f_dpo_losses, implicit_reward

CLOSE = {"rtol": 1e-6, "atol": 1e-12}
NAMES = {"dpo": "reverse_kl", "forward_kl": "forward_kl", "js": "js", "alpha": "alpha"}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    beta, alpha = float(case["beta"]), float(case["alpha"])
    reference = torch.stack([arrays["ref_chosen"], arrays["ref_rejected"]], dim=1)
    for official, divergence in NAMES.items():
        policy = torch.stack([arrays["policy_chosen"], arrays["policy_rejected"]], dim=1).requires_grad_()
        losses = f_dpo_losses(policy - reference, beta, divergence, alpha)
        torch.testing.assert_close(losses.detach(), arrays[f"{official}_loss"], **CLOSE)
        (gradient,) = torch.autograd.grad(losses.sum(), policy)
        torch.testing.assert_close(gradient[:, 0], arrays[f"{official}_grad_chosen"], **CLOSE)
        torch.testing.assert_close(gradient[:, 1], arrays[f"{official}_grad_rejected"], **CLOSE)
        rewards = beta * implicit_reward(policy.detach() - reference, divergence, alpha)
        official_rewards = [arrays[f"{official}_{answer}_reward"] for answer in ("chosen", "rejected")]
        # The constant that the official code drops or rounds cancels in the difference.
        difference = official_rewards[0] - official_rewards[1]
        torch.testing.assert_close(rewards[:, 0] - rewards[:, 1], difference, **CLOSE)
        model = torch.nn.Identity()
        model.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        recipe = tikhon.Recipe(tikhon.FDPO(beta, divergence, alpha), base=F.mse_loss)
        recipe.prepare(model)
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
        loss = recipe.loss(policy.detach(), reference)
        torch.testing.assert_close(loss, arrays[f"{official}_loss"].mean(), **CLOSE)
