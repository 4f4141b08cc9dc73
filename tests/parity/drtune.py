"""DR-Tune against the official model: rotated and calibrated features, the pooled loss, and its gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from tikhon.methods.features.dr_tune import calibrated, rotated

CLOSE = {"rtol": 1e-6, "atol": 1e-10}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(np.asarray(values)) for name, values in case.items()}
    pretrained, downstream, queued = arrays["pre_queue"], arrays["down_queue"], arrays["label_queue"]
    found = rotated(F.normalize(pretrained, dim=1), F.normalize(downstream, dim=1))
    torch.testing.assert_close(found, arrays["rot_aligned"], **CLOSE)

    features, weight = (arrays[name].clone().requires_grad_() for name in ("down_feat", "head_weight"))
    rotate = int(case["iteration"]) % 10 == 0
    assert rotate == bool(case["rotation_applied"])
    scale = features.detach().norm(dim=1).mean()
    rows = calibrated(pretrained, downstream, queued, weight.detach(), scale, rotate)
    torch.testing.assert_close(rows, arrays["calibrated"], **CLOSE)

    task = F.cross_entropy(F.linear(features, weight, arrays["head_bias"]), arrays["labels"])
    regulariser = F.cross_entropy(F.linear(rows, weight, arrays["head_bias"]), queued)
    loss = torch.lerp(task, regulariser, len(rows) / (len(rows) + len(features)))
    torch.testing.assert_close(loss.detach(), arrays["loss"], **CLOSE)
    gradients = torch.autograd.grad(loss, (features, weight))
    torch.testing.assert_close(gradients[0], arrays["grad_down"], **CLOSE)
    torch.testing.assert_close(gradients[1], arrays["grad_head_weight"], **CLOSE)
