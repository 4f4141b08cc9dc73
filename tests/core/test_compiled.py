"""Compiled to machine code and under autocast, a recipe trains as it does without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tikhon import ELR, EMA, L2, SAM, Method, MixUp, Recipe
from tikhon.core.terms import Term

from .common import CARD, mlp, rows, weights


class Pulls(Method):
    """Pulls a feature towards zero, that of an extra pass too."""

    card = CARD

    def taps(self, model: nn.Module) -> list[str]:
        return ["0"]

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        features = step.tap("0").output, step.forward_with_taps(step.inputs)[1]["0"].output
        return {self.key: Term(sum(one.square().mean(1) for one in features), 0.1)}


def trained(**compiler: Any) -> list[Tensor]:
    recipe = Recipe(MixUp(), ELR(), SAM(0.1), L2(1e-2), EMA(0.5), Pulls())
    model = recipe.prepare(mlp().float(), samples=8)
    called = torch.compile(model, **compiler) if compiler else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, model=called, steps=3)
    x, y = rows()
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = recipe.loss(x.float(), y, index=torch.arange(8))
        loss.backward()
        optimizer.step()
    return [*weights(model), *weights(recipe.export())]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it imports its compiler
def test_machine_code_trains_the_same_weights() -> None:
    torch._dynamo.reset()
    for one, other in zip(trained(backend="inductor", fullgraph=True), trained(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-3)
