"""DHSPG against the official optimizer: every weight after every step, by the class and by its functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tikhon
from tikhon.methods.sparsity.dhspg import dual_strengths, redundancy, redundant_units

CLOSE = {"rtol": 1e-6, "atol": 1e-12}

MOMENTA = {"sgd": (0.0, 0.0), "adam": (0.9, 0.999)}
"""What the official variants have where a case does not say."""


class Parallel(nn.Module):
    """Layers side by side, each read by a head of its own."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*reversed(weight.shape), dtype=torch.float64) for weight, _ in layers)
        self.heads = nn.ModuleList(nn.Linear(len(weight), 1, dtype=torch.float64) for weight, _ in layers)
        for layer, (weight, bias) in zip(self.layers, layers, strict=True):
            layer.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, inputs: Tensor) -> list[Tensor]:
        return [head(layer(inputs)) for layer, head in zip(self.layers, self.heads, strict=True)]


class Trial(torch.optim.Optimizer):
    """The step before the penalty as the official code takes it: its moving averages begin with the first gradient."""

    def __init__(self, parameters: Any, case: Mapping[str, np.ndarray]) -> None:
        super().__init__(parameters, {"lr": float(case["lr"])})
        variant = str(case["variant"])
        first, second = MOMENTA[variant]
        self.adam = variant == "adam"
        self.first = float(case.get("first_momentum", first))
        self.second = float(case.get("second_momentum", second))
        self.dampening = self.first if self.adam else float(case.get("dampening", 0.0))
        self.decay = float(case.get("weight_decay", 0.0))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * self.direction(parameter, self.state[parameter])

    def direction(self, parameter: Tensor, state: dict[str, Any]) -> Tensor:
        gradient = parameter.grad + self.decay * parameter
        if not state:
            state |= {"mean": gradient.clone(), "square": gradient.square(), "steps": 1}
        else:
            state["steps"] += 1
            state["mean"] = self.first * state["mean"] + (1 - self.dampening) * gradient
            state["square"] = self.second * state["square"] + (1 - self.second) * gradient.square()
        if not self.adam:
            return state["mean"] if self.first or self.dampening else gradient
        mean = state["mean"] / (1 - self.first ** state["steps"])
        return mean / ((state["square"] / (1 - self.second ** state["steps"])).sqrt() + 1e-8)


def check(case: Mapping[str, np.ndarray]) -> None:
    by_functions(case)
    if int(case["warm_up_steps"]) <= int(case["partition_step"]) + 1:  # the class has one warm-up, the code two
        by_class(case)


def layers_of(case: Mapping[str, np.ndarray]) -> range:
    return range(len(case["n_groups"]))


def initial(case: Mapping[str, np.ndarray]) -> list[tuple[Tensor, Tensor]]:
    return [(torch.tensor(case[f"W{k}_init"]), torch.tensor(case[f"b{k}_init"])) for k in layers_of(case)]


def after(case: Mapping[str, np.ndarray], kind: str, t: int) -> list[Tensor]:
    """One matrix a layer at step t, of weights ("") or gradients ("g"): a row a unit, its bias last."""
    pairs = [(case[f"{kind}W{k}"][t], case[f"{kind}b{k}"][t]) for k in layers_of(case)]
    return [torch.tensor(np.concatenate([weight, bias[:, None]], axis=1)) for weight, bias in pairs]


def target(case: Mapping[str, np.ndarray]) -> float:
    """The code divides by a little more than the number of units, so exactly the target does not end its penalties."""
    total = int(case["n_groups"].sum())
    return float(case["target_group_sparsity"]) * float(np.float32(total) + np.float32(6e-6)) / total


def by_class(case: Mapping[str, np.ndarray]) -> None:
    partition, projection = int(case["partition_step"]), int(case["half_space_project_steps"]) - 1
    levels = (
        {0.0: -1e30, float(projection): float(case["epsilon"])} if projection > 0 else {0.0: float(case["epsilon"])}
    )
    method = tikhon.DHSPG(
        remove=target(case),
        strength=tikhon.stepwise({-1.0: 0.0, float(partition): float(case["lmbda"])}, by="step"),
        epsilon=tikhon.stepwise(levels, by="step"),
        amplify=float(case["lmbda_amplify"]),
        cap=float(case["hat_lmbda_coeff"]),
        tolerance=float(case["tolerance_group_sparsity"]),
        multiple=int(case.get("group_divisible", 1)),
    )
    model = Parallel(initial(case))
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = Trial(model.parameters(), case)
    recipe.attach(optimizer)
    for t in range(int(case["steps"])):
        for layer, rows in zip(model.layers, after(case, "g", t), strict=True):
            layer.weight.grad, layer.bias.grad = rows[:, :-1].clone(), rows[:, -1].clone()
        optimizer.step()
        found = [torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach() for layer in model.layers]
        torch.testing.assert_close(found, after(case, "", t), **CLOSE)
        zero = torch.cat([(rows == 0).all(dim=1) for rows in found])
        assert math.isclose(float(zero.double().mean()), float(case["group_sparsity"][t]), rel_tol=1e-5, abs_tol=1e-9)
    for k in layers_of(case):
        assert method.redundant.tensors[f"layers.{k}"].tolist() == case[f"penalized{k}"].tolist()


def by_functions(case: Mapping[str, np.ndarray]) -> None:
    """Each step from the official weights before it, by formula."""
    rate, strength, epsilon = (float(case[name]) for name in ("lr", "lmbda", "epsilon"))
    amplify, cap = float(case["lmbda_amplify"]), float(case["hat_lmbda_coeff"])
    sizes = [int(n) for n in case["n_groups"]]
    leaf = nn.Parameter(torch.cat([torch.cat([weight, bias[:, None]], dim=1) for weight, bias in initial(case)]))
    trial = Trial([leaf], case)
    redundant = torch.zeros(len(leaf), dtype=torch.bool)
    for t in range(int(case["steps"])):
        x = leaf.detach().clone()
        leaf.grad = torch.cat(after(case, "g", t))
        trial.step()
        g = (x - leaf.detach()) / rate
        norms, products = x.norm(dim=1), (x * g).sum(dim=1)
        if t == int(case["partition_step"]):
            cosines = products / (norms * g.norm(dim=1))
            share = min(float(case["target_group_sparsity"]) + float(case["tolerance_group_sparsity"]), 0.999)
            scores = redundancy(norms, cosines, torch.full_like(norms, x.shape[1]))
            redundant = redundant_units(scores, sizes, share, int(case.get("group_divisible", 1)))
        reached = t > 0 and float(case["group_sparsity"][t - 1]) >= float(case["target_group_sparsity"])
        if not reached:
            lengths = torch.full_like(norms, strength)
            if t + 1 >= int(case["warm_up_steps"]):
                lengths = dual_strengths(norms, products, g.square().sum(dim=1), strength, amplify, cap)
            shrunk = leaf.detach() - (rate * lengths / (norms + 1e-8))[:, None] * x
            moved = torch.where(redundant[:, None], shrunk, leaf.detach())
            if t + 1 >= max(int(case["half_space_project_steps"]), int(case["warm_up_steps"])):
                moved[redundant & ((moved * x).sum(dim=1) < epsilon * norms.square())] = 0.0
            leaf.data.copy_(moved)
        leaf.data[norms == 0] = 0.0
        torch.testing.assert_close(leaf.detach(), torch.cat(after(case, "", t)), **CLOSE)
    expected = np.concatenate([case[f"penalized{k}"] for k in layers_of(case)])
    assert redundant.tolist() == expected.tolist()
