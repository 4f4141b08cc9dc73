"""OVOR against the official class: the penalty with its gradients, the boundary's order and the chosen candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from tikhon.math.neighbours import loneliest
from tikhon.methods.continual.virtual_outlier import energy, energy_hinge

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    inside, outside = (arrays[name].clone().requires_grad_() for name in ("id_logits", "ood_logits"))
    squared = not bool(case["huber"])
    within = energy_hinge(energy(inside) - float(case["thres_id"]), squared).mean()
    beyond = energy_hinge(float(case["thres_ood"]) - energy(outside), squared).mean()
    loss = float(case["lmda"]) * (within + beyond)
    torch.testing.assert_close(loss.item(), float(case["loss"]), **CLOSE)
    torch.testing.assert_close(energy(inside).mean().item(), float(case["id_score"]), **CLOSE)
    torch.testing.assert_close(energy(outside).mean().item(), float(case["ood_score"]), **CLOSE)
    for found, name in zip(torch.autograd.grad(loss, [inside, outside]), ("grad_id", "grad_ood"), strict=True):
        torch.testing.assert_close(found, arrays[name], **CLOSE)
    if "ids" not in case:
        return
    features, k = F.normalize(arrays["ids"]), int(case["knn_k"])
    expected = next(arrays[name] for name in arrays if name.startswith("boundary_index"))
    assert torch.equal(loneliest(features, features, k, len(expected)), expected)
    selected = next(arrays[name] for name in arrays if name.startswith("selected"))
    places = loneliest(arrays["candidates"], features, k, len(selected))
    torch.testing.assert_close(arrays["candidates"][places], selected, **CLOSE)
