"""Nested dropout against the official distribution and masks, by pure functions, the class and a recipe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.stochastic.nested_dropout import keep_first, kept_distribution

CLOSE = {"rtol": 1e-6, "atol": 1e-15}


class Head(nn.Module):
    """A linear layer that notes what reaches it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, 2, dtype=torch.float64)
        self.seen = torch.zeros(0)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs)

    def note(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.seen = args[0].detach()


def check(case: Mapping[str, np.ndarray]) -> None:
    centre, scale, features = float(case["mu"]), float(case["std"]), int(case["feat_dim"])
    x, masked = torch.from_numpy(case["x"]), torch.from_numpy(case["masked"])
    distribution = kept_distribution(features, scale, centre)
    torch.testing.assert_close(distribution, torch.from_numpy(case["dist"]), **CLOSE)
    for k, expected in zip(case["k_index"].tolist(), masked, strict=True):
        assert torch.equal(keep_first(x, k + 1), expected)
        assert torch.equal(keep_first(x, torch.tensor(k + 1)), expected)
        assert torch.equal(evaluated(x, scale, centre, k + 1), expected)
    kept, seen = trained(x, scale, centre)
    assert distribution[kept - 1] > 0
    assert torch.equal(seen, torch.cat([x[:, :kept], torch.zeros_like(x[:, kept:])], dim=1))


def prepared(x: Tensor, method: tikhon.Method) -> tuple[tikhon.Recipe, Head]:
    model = Head(x.shape[1])
    recipe = tikhon.Recipe(method, base=F.mse_loss)
    recipe.prepare(model)
    model.head.register_forward_pre_hook(model.note)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model


def evaluated(x: Tensor, scale: float, centre: float, keep: int) -> Tensor:
    """What the layer sees in evaluation."""
    _, model = prepared(x, tikhon.NestedDropout(scale=scale, centre=centre, keep=keep))
    model.eval()(x)
    return model.seen


def trained(x: Tensor, scale: float, centre: float) -> tuple[int, Tensor]:
    """The number of features drawn in a training step, and what the layer saw."""
    recipe, model = prepared(x, tikhon.NestedDropout(scale=scale, centre=centre))
    recipe.loss(x, torch.zeros(len(x), 2, dtype=torch.float64))
    return int(recipe.methods["nested_dropout"].drawn), model.seen
