"""EATA against the official adaptation of a linear model: kept samples, running mean, and the step of SGD."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

import tikhon

CLOSE = {"rtol": 1e-6, "atol": 1e-10}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(np.asarray(values)) for name, values in case.items()}
    classes, features = arrays["W"].shape
    method = tikhon.EATA(
        margin=float(case["e_margin"]) / math.log(classes),
        similarity=float(case["d_margin"]),
        strength=float(case["fisher_alpha"]),
        where="all",
    )
    recipe = tikhon.Recipe(method)
    model = nn.Linear(features, classes, dtype=torch.float64)
    model.load_state_dict({"weight": arrays["W"], "bias": arrays["b"]})
    recipe.prepare(model)
    rate = float(case["lr"])
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=rate))
    if "probs" in arrays:
        method.mean.write(torch.tensor([0]), arrays["probs"][None])
        method.mean.commit()
    if "fisher_W" in arrays:
        method.importance.take({"weight": arrays["fisher_W"], "bias": torch.zeros_like(arrays["b"])})
        method.anchor.take({"weight": arrays["anchor_W"], "bias": arrays["b"]})
    torch.testing.assert_close(model(arrays["x"]).detach(), arrays["logits"], **CLOSE)
    recipe.loss(arrays["x"]).backward()
    assert method.kept is not None
    assert int(method.kept.sum()) == int(case["n_selected"])
    optimizer.step()
    if "updated_probs" in arrays:  # none where there was no mean before and nothing was kept
        torch.testing.assert_close(method.mean.read(torch.tensor([0]))[0], arrays["updated_probs"], **CLOSE)
    for name, after in (("weight", arrays["W_after"]), ("bias", arrays["b_after"])):
        before = arrays["W" if name == "weight" else "b"]
        found = model.get_parameter(name).detach()
        torch.testing.assert_close((before - found) / rate, (before - after) / rate, **CLOSE)
