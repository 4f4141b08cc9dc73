"""What both official cases of Hessian alignment hold: a small network and batches of several environments."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.methods.domains.hessian_align import _alignment_terms

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


class Domains:
    """The arrays of a case as tensors; the weights require a gradient."""

    def __init__(self, case: Mapping[str, np.ndarray]) -> None:
        self.x, self.y = torch.from_numpy(case["x"]), torch.from_numpy(case["y"])
        names = ("feat_weight", "feat_bias", "cls_weight", "cls_bias")
        self.weights = [torch.from_numpy(case[name]).clone().requires_grad_() for name in names]
        self.feature_weight, self.feature_bias, self.head_weight, self.head_bias = self.weights

    def losses(self) -> list[Tensor]:
        features = torch.tanh(F.linear(self.x, self.feature_weight, self.feature_bias))
        scores = F.linear(features, self.head_weight, self.head_bias)
        return [F.cross_entropy(one, labels) for one, labels in zip(scores, self.y, strict=True)]


def compare(case: Mapping[str, np.ndarray], domains: Domains, probes: Tensor | None) -> None:
    losses = domains.losses()
    present = torch.ones(len(losses), dtype=torch.float64)
    curvature, gradient = _alignment_terms(losses, present, domains.weights[2:], probes)
    nll = torch.stack(losses).mean()
    penalty = float(case["alpha"]) * curvature + float(case["beta"]) * gradient
    torch.testing.assert_close(nll.item(), float(case["nll"]), **CLOSE)
    torch.testing.assert_close(penalty.item(), float(case["penalty"]), **CLOSE)
    names = ("grad_feat_weight", "grad_feat_bias", "grad_cls_weight", "grad_cls_bias")
    for found, name in zip(torch.autograd.grad(nll + penalty, domains.weights), names, strict=True):
        torch.testing.assert_close(found, torch.from_numpy(case[name]), **CLOSE)
