"""Regularised solver heuristics: what the term is, both at random times, what it does to a flow, and wrong input."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.physics.solver_reg import accumulated, at_random_time

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(8, 2, dtype=torch.float64, generator=GENERATOR)
LABELS = torch.arange(8) % 3


class Field(nn.Module):
    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.inner = nn.Linear(size, size)

    def forward(self, t, y):
        return torch.tanh(3.0 * self.inner(y)) * (1.0 + t[:, None])


def network():
    torch.manual_seed(1)
    return nn.Sequential(tikhon.NeuralODE(Field(), rtol=1e-7, atol=1e-7), nn.Linear(2, 3)).double()


def ready(model=None, **arguments):
    model = network() if model is None else model
    recipe = tikhon.Recipe(tikhon.SolverHeuristicReg(**arguments))
    recipe.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    recipe.attach(optimizer)
    return recipe, model, optimizer


@pytest.mark.parametrize("heuristic", ["error", "stiffness"])
@pytest.mark.parametrize("average", [False, True])
def test_the_loss_is_that_of_the_task_and_the_sum_over_steps(heuristic, average) -> None:
    recipe, model, _ = ready(strength=0.3, heuristic=heuristic, average=average)
    loss = recipe.loss(INPUTS, LABELS)
    solution = model[0].solve(INPUTS)
    estimates = {"error": solution.errors, "stiffness": solution.stiffness}[heuristic].detach()
    penalty = 0.0
    for i in range(8):
        steps = [(float(e), float(h)) for e, h in zip(estimates[:, i], solution.sizes[:, i], strict=True) if h > 0]
        assert len(steps) > 1
        penalty += sum(e * h for e, h in steps) / (len(steps) if average else 1)
    assert loss.item() == pytest.approx(F.cross_entropy(model(INPUTS), LABELS).item() + 0.3 * penalty / 8, rel=1e-12)
    loss.backward()
    assert model[0].field.inner.weight.grad.abs().sum() > 0


def test_a_random_time_is_unbiased_and_lies_in_one_step() -> None:
    solution = network()[0].solve(INPUTS)
    sizes, errors = solution.sizes, solution.errors.detach()
    draws = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    for i in range(8):
        values = at_random_time(errors[:, [i]].expand(-1, 20000), sizes[:, [i]].expand(-1, 20000), draws)
        taken = errors[:, i][sizes[:, i] > 0]  # the way has length 1
        torch.testing.assert_close(values.unique(), taken.unique(), rtol=1e-9, atol=0.0)
        assert values.mean().item() == pytest.approx(accumulated(errors, sizes)[i].item(), rel=1e-3)


def test_a_random_time_is_drawn_anew_by_sample_and_step() -> None:
    recipe, model, optimizer = ready(strength=1.0, times="random")
    values = []
    for _ in range(2):
        recipe.loss(INPUTS, LABELS).backward()
        values.append(recipe.log()["loss/solver_reg/error"])
        optimizer.step()
        model.load_state_dict(network().state_dict())  # the same flow again
    assert values[0] != values[1]


@pytest.mark.parametrize("heuristic", ["error", "stiffness"])
def test_flows_become_easier_to_solve(heuristic) -> None:
    evaluations = {}
    for strength in (0.0, 0.3):
        recipe, model, optimizer = ready(strength=strength, heuristic=heuristic)
        for _ in range(60):
            optimizer.zero_grad()
            recipe.loss(INPUTS, LABELS).backward()
            optimizer.step()
        evaluations[strength] = model[0].solve(INPUTS).evaluations.double().mean().item()
    assert evaluations[0.3] < 0.75 * evaluations[0.0]


def test_several_blocks_add_up_and_the_model_may_be_one() -> None:
    model = nn.Sequential(*network(), tikhon.NeuralODE(Field(3)).double())
    recipe, model, _ = ready(model)
    recipe.loss(INPUTS, LABELS)
    first = model[0].solve(INPUTS)
    second = model[2].solve(model[1](first.state))
    expected = accumulated(first.errors, first.sizes).mean() + accumulated(second.errors, second.sizes).mean()
    assert recipe.log()["loss/solver_reg/error"] == pytest.approx(expected.item(), rel=1e-12)
    recipe, _, _ = ready(tikhon.NeuralODE(Field()).double())
    recipe.loss(INPUTS, LABELS % 2)
    assert recipe.log()["loss/solver_reg/error"] > 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"no tikhon\.NeuralODE in Linear"):
        ready(nn.Linear(2, 3))
    for wrong, says in (({"heuristic": "order"}, "heuristic"), ({"times": "some"}, "times"),
                        ({"times": "random", "average": True}, "average")):  # fmt: skip
        with pytest.raises(TikhonError, match=says):
            tikhon.SolverHeuristicReg(**wrong)
