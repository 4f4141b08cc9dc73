"""Hessian alignment by products of Hessian and gradient against the official code, by functions and by the recipe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from hessian_alignment import Domains, compare
from torch import nn

import tikhon


def check(case: Mapping[str, np.ndarray]) -> None:
    domains = Domains(case)
    compare(case, domains, None)
    # Through the recipe: environments of equal size, so that the mean over samples is the mean over environments.
    features = nn.Linear(*domains.feature_weight.shape[::-1]).double()
    head = nn.Linear(*domains.head_weight.shape[::-1]).double()
    with torch.no_grad():
        features.weight.copy_(domains.feature_weight)
        features.bias.copy_(domains.feature_bias)
        head.weight.copy_(domains.head_weight)
        head.bias.copy_(domains.head_bias)
    count, each = domains.y.shape
    ids = torch.arange(count).repeat_interleave(each)
    method = tikhon.HessianAlignment(ids, float(case["alpha"]), float(case["beta"]))
    recipe = tikhon.Recipe(method)
    model = recipe.prepare(nn.Sequential(features, nn.Tanh(), head), samples=count * each)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    loss = recipe.loss(domains.x.flatten(0, 1), domains.y.flatten(), index=torch.arange(count * each))
    torch.testing.assert_close(loss.item(), float(case["loss"]), rtol=1e-6, atol=1e-12)
    loss.backward()
    names = ("grad_feat_weight", "grad_feat_bias", "grad_cls_weight", "grad_cls_bias")
    for parameter, name in zip(model.parameters(), names, strict=True):
        torch.testing.assert_close(parameter.grad, torch.from_numpy(case[name]), rtol=1e-6, atol=1e-12)
