"""Outputs of modules over a data set: all batches, all calls, read before they are written over, and nothing left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tikhon import TikhonError
from tikhon.core.outputs import ROWS, read_outputs
from tikhon.core.unit_moments import unit_moments

X = torch.randn(2 * ROWS + 7, 3, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)

    def forward(self, x):
        return self.act(self.last(self.act(self.first(x))))


def test_batches_and_calls_come_in_order_and_before_they_are_written_over() -> None:
    torch.manual_seed(0)
    model = Twice()
    batches = list(read_outputs(model, X, ["act", "first"], "test", lambda module, output: output.clone()))
    assert [name for name, _ in batches[0]] == ["first", "act", "act:2"]
    assert [len(one[0][1]) for one in batches] == [ROWS, ROWS, 7]
    joined = [torch.cat([batch[place][1] for batch in batches]) for place in range(3)]
    first = model.first(X)
    torch.testing.assert_close(joined[0], first)
    torch.testing.assert_close(joined[1], first.relu())
    torch.testing.assert_close(joined[2], model(X))
    assert model.training


def test_nothing_is_left_where_a_pass_fails_and_unknown_modules_are_refused() -> None:
    model = Twice()
    with pytest.raises(RuntimeError):
        list(read_outputs(model, X[:, :2], ["act"], "test", lambda module, output: output))
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training
    with pytest.raises(TikhonError, match="no module 'actt'"):
        list(read_outputs(model, X, ["actt"], "test", lambda module, output: output))


def test_moments_are_those_of_the_whole_set() -> None:
    model = nn.Sequential(nn.Conv1d(1, 5, 2), nn.Tanh())
    found = unit_moments(model, X[:, None], None, "test")["1"]
    rows = model(X[:, None]).detach().movedim(1, -1).reshape(-1, 5)
    assert found.rows == len(rows) == 2 * len(X)
    assert torch.equal(found.low, rows.amin(0))
    assert torch.equal(found.high, rows.amax(0))
    torch.testing.assert_close(found.total, rows.double().sum(0))
    torch.testing.assert_close(found.products, rows.double().T @ rows.double())
