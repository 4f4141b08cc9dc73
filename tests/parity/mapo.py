"""MaPO against the official loss: errors, margin, loss and gradient, by pure functions and by the recipe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

import tikhon
from tikhon.methods.preference.mapo import likelihood_score, mapo_losses

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    beta, snr, timesteps = float(case["beta_mapo"]), float(case["snr_value"]), int(case["num_train_timesteps"])
    # The official batch holds all chosen samples, then all rejected ones.
    prediction = torch.stack(arrays["pred"].chunk(2), dim=1).requires_grad_()
    target = torch.stack(arrays["target"].chunk(2), dim=1)
    errors = (prediction - target).square().flatten(2).mean(2)
    torch.testing.assert_close(errors[:, 0].detach(), arrays["loss_w"], **CLOSE)
    torch.testing.assert_close(errors[:, 1].detach(), arrays["loss_l"], **CLOSE)
    scores = likelihood_score(errors.detach(), snr)
    ratios = beta * F.logsigmoid(timesteps * (scores[:, 0] - scores[:, 1]))
    torch.testing.assert_close(ratios, arrays["ratio_losses"], **CLOSE)
    loss = mapo_losses(errors, beta, snr, timesteps).mean()
    expected = torch.tensor(float(case["loss"]), dtype=torch.float64)
    torch.testing.assert_close(loss.detach(), expected, **CLOSE)
    (gradient,) = torch.autograd.grad(loss, prediction)
    torch.testing.assert_close(torch.cat(gradient.unbind(1)), arrays["grad_pred"], **CLOSE)
    model = torch.nn.Identity()
    model.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    recipe = tikhon.Recipe(tikhon.MaPO(beta, snr, timesteps), base=F.mse_loss)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    torch.testing.assert_close(recipe.loss(prediction.detach(), target), expected, **CLOSE)
