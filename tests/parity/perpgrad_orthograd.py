"""PerpGrad against the official OrthoGrad, which also restores norms: pure functions, and steps of an optimizer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

import tikhon
from tikhon.methods.dynamics.perp_grad import orthogonal_to, with_norms_of

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


class Linear(nn.Module):
    """sum_i <w_i, x_i>: its gradient is its input."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(one.clone()) for one in weights])

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.stack([(w * x).sum() for w, x in zip(self.weights, inputs, strict=True)]).sum()[None]


def check(case: Mapping[str, np.ndarray]) -> None:
    def tensors(pattern: str, t: int) -> list[Tensor]:
        names = itertools.takewhile(case.__contains__, (pattern.format(i=i, t=t) for i in itertools.count()))
        return [torch.from_numpy(case[name]) for name in names]

    def steps() -> Iterator[int]:
        return itertools.takewhile(lambda t: f"w0_step{t}" in case, itertools.count())

    for t in steps():
        raw = tensors("g{i}_step{t}", t)
        projected = with_norms_of(orthogonal_to(tensors("w{i}_step{t}", t), raw), raw)
        torch.testing.assert_close(projected, tensors("gproj{i}_step{t}", t), **CLOSE)

    model = Linear(tensors("w{i}_step{t}", 0))
    recipe = tikhon.Recipe(tikhon.PerpGrad(rescale=True), base=lambda output, target: output)
    recipe.prepare(model)
    optimizer = optimizer_of(case, model)
    recipe.attach(optimizer)
    for t in steps():
        optimizer.zero_grad()
        recipe.loss(tuple(tensors("g{i}_step{t}", t)), torch.zeros(1)).backward()
        optimizer.step()
        torch.testing.assert_close([one.grad for one in model.weights], tensors("gproj{i}_step{t}", t), **CLOSE)
        torch.testing.assert_close([one.detach() for one in model.weights], tensors("w{i}_after{t}", t), **CLOSE)


def optimizer_of(case: Mapping[str, np.ndarray], model: nn.Module) -> torch.optim.Optimizer:
    """What a case does not hold of its optimizer is in the index of the cases."""
    rate = float(case["lr"])
    if str(case["optimizer"]) == "AdamW":
        betas = tuple(float(one) for one in case.get("betas", np.array([0.9, 0.99])))
        decay, eps = float(case.get("weight_decay", 0.0)), float(case.get("eps", 1e-25))
        return torch.optim.AdamW(model.parameters(), lr=rate, betas=betas, eps=eps, weight_decay=decay)
    starts_at_zero = not case["w0_step0"].any()
    momentum = float(case.get("momentum", 0.9 if starts_at_zero else 0.0))
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
