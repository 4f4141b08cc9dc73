"""Mixed Barlow Twins against the official training loop: both losses, and the gradient of their sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.math.decorrelation import barlow_twins, standardised
from tikhon.methods.features.mixed_barlow_twins import mixing_gap

CLOSE = {"rtol": 1e-6, "atol": 1e-10}


def check(case: Mapping[str, np.ndarray]) -> None:
    outputs = [torch.from_numpy(case[name]).requires_grad_() for name in ("z1", "z2", "zm")]
    one, other, mixed = (standardised(output, correction=1) for output in outputs)
    redundancy = float(case["lmbda"])
    invariance, overlap = barlow_twins(one, other)
    twins = invariance + redundancy * overlap
    # The official loss has no 1/2.
    gap = mixing_gap(one, other, mixed, torch.from_numpy(case["perm"]), float(case["alpha"]))
    mixing = 2.0 * float(case["mixup_loss_scale"]) * redundancy * gap
    torch.testing.assert_close(twins.detach(), torch.tensor(case["loss_bt"]), **CLOSE)
    torch.testing.assert_close(mixing.detach(), torch.tensor(case["loss_mix"]), **CLOSE)
    for name, gradient in zip(("z1", "z2", "zm"), torch.autograd.grad(twins + mixing, outputs), strict=True):
        torch.testing.assert_close(gradient, torch.from_numpy(case[f"grad_{name}"]), **CLOSE)
