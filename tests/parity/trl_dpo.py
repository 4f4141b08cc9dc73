"""f-DPO against trl, for the loss types that it has: sigmoid, and the divergences in trl's parametrisation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.methods.preference.f_dpo import f_dpo_losses

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    reference = torch.stack([arrays["ref_chosen"], arrays["ref_rejected"]], dim=1)
    alpha = 1.0 - float(case["f_alpha_divergence_coef"])  # trl writes (t^(a - 1) - 1) / (a - 1)
    names = {
        "sigmoid": "reverse_kl",
        "sigmoid+forward_kl": "forward_kl",
        "sigmoid+js_divergence": "js",
        "sigmoid+alpha_divergence": "alpha",
    }
    for official, divergence in names.items():
        policy = torch.stack([arrays["policy_chosen"], arrays["policy_rejected"]], dim=1).requires_grad_()
        losses = f_dpo_losses(policy - reference, float(case["beta"]), divergence, alpha)
        torch.testing.assert_close(losses.detach(), arrays[f"{official}/loss"], **CLOSE)
        (gradient,) = torch.autograd.grad(losses.sum(), policy)
        torch.testing.assert_close(gradient[:, 0], arrays[f"{official}/grad_chosen"], **CLOSE)
        torch.testing.assert_close(gradient[:, 1], arrays[f"{official}/grad_rejected"], **CLOSE)
