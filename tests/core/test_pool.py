"""Pools: rows that a method draws for itself follow from the recipe's seed, and bad pools are refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

import tikhon
from tikhon.core.card import Card
from tikhon.core.pool import Pool

CARD = Card("A title", 2026, "0000.00000", ("overfitting",), "x", "It is.", "Always.", "Never.", "Nothing.")


class Drawing(tikhon.Method):
    card = CARD

    def __init__(self, inputs):
        super().__init__()
        self.pool, self.drawn = Pool(inputs, "drawing"), []

    def terms(self, output, target, step):
        self.drawn.append(self.pool.draw(5, step, output.device))
        return {}


def drawn(inputs, seed=0):
    method = Drawing(inputs)
    recipe = tikhon.Recipe(method, seed=seed)
    model = recipe.prepare(torch.nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    for _ in range(3):
        torch.rand(7)  # another use of the global generator changes nothing
        recipe.loss(torch.ones(4, 3), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    return torch.stack(method.drawn)


def test_rows_are_those_of_the_pool_and_follow_from_the_seed():
    inputs = torch.arange(36.0).reshape(12, 3)
    rows = drawn(inputs)
    assert set(map(tuple, rows.reshape(-1, 3).tolist())) <= set(map(tuple, inputs.tolist()))
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(rows, drawn(inputs))
    assert not torch.equal(rows, drawn(inputs, seed=1))


def test_a_dataset_gives_the_rows_that_its_tensor_gives():
    inputs = torch.arange(36.0).reshape(12, 3)
    assert torch.equal(drawn(TensorDataset(inputs, torch.zeros(12))), drawn(inputs))
    assert torch.equal(drawn(list(inputs)), drawn(inputs))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(0, 3), "no further inputs"),
        (torch.tensor(1.0), "no further inputs"),
        ([], "no further inputs"),
        (iter([torch.zeros(3)]), "map-style dataset, not from list_iterator"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(inputs, message):
    with pytest.raises(tikhon.TikhonError, match=message):
        Pool(inputs, "drawing")


def test_items_that_are_no_tensors_are_refused():
    with pytest.raises(tikhon.TikhonError, match="must be a tensor, or the first of a tuple, not str"):
        drawn(["a", "b"])
