"""Several micro-batches equal one batch: of unequal sizes with `total=`, of equal sizes as means."""

from __future__ import annotations

import pytest
import torch

from .rows import METHODS, make, problem_of
from .training import BATCH, Training, batches, network, obeys, tensors

STEPS = 3


def trained(name, sizes, total):
    training = Training.of(make(name), model=network(norm=False, dtype=torch.float64, problem=problem_of(name)))
    for index, inputs, labels in batches(0, STEPS, torch.float64, training.problem):
        training.optimizer.zero_grad()
        for rows in torch.arange(BATCH).split(sizes):
            loss = training.recipe.loss(
                inputs[rows], labels[rows], index=index[rows], total=float(BATCH) if total else None
            )
            (loss if total else loss / len(sizes)).backward()
        training.optimizer.step()
    assert training.recipe.step == STEPS
    return training


@pytest.mark.environment("accumulation")
@pytest.mark.parametrize(("sizes", "total"), [([3, 5, 8], True), ([8, 8], False), ([4, 4, 4, 4], False)])
@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_equal_one_batch(name, sizes, total):
    obeys(name, "accumulation")
    expected = tensors(trained(name, [BATCH], False).model)
    found = tensors(trained(name, sizes, total).model)
    for key in expected:
        torch.testing.assert_close(
            found[key], expected[key], rtol=1e-9, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}"
        )
