"""A prepared model compiles without a graph break, and trains to the weights of the model that is not compiled."""

from __future__ import annotations

import pytest
import torch

from .rows import METHODS, make, problem_of
from .training import Training, network, obeys, tensors


def whole(model):
    torch._dynamo.reset()
    return torch.compile(model, backend="eager", fullgraph=True)


@pytest.mark.environment("compile")
@pytest.mark.parametrize("name", METHODS)
def test_compiled_training_equals_eager_training(name):
    obeys(name, "compile")
    results = []
    for compiled in (None, whole):
        torch.manual_seed(0)
        training = Training.of(
            make(name), model=network(dtype=torch.float64, problem=problem_of(name)), compiled=compiled
        ).until(4)
        results.append(tensors(training.model))
    for key, expected in results[0].items():
        torch.testing.assert_close(results[1][key], expected, rtol=1e-9, atol=1e-10)
