"""Random recipes on random small models and batches train finitely or are refused with a `TikhonError`.

A few hundred are tried here; `TIKHON_FUZZ=10000 python -m pytest tests/fuzz` tries as many as you say.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from laws.rows import METHODS, arguments_of, problem_of
from laws.training import network
from tikhon import TikhonError
from tikhon.core.catalogue import methods
from tikhon.core.method import strengths

EXAMPLES = int(os.environ.get("TIKHON_FUZZ", "150"))
CLASSES, SAMPLES, STEPS = 4, 32, 3
COUNTS: Counter[str] = Counter()


class Tokens(nn.Module):
    """A small transformer on the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(inputs[:, 0]).mean(1))
        return scores


MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES)),
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES)
    ),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.GELU(), nn.Flatten(), nn.Linear(16, CLASSES)
    ),
    "tokens": Tokens,
}
LOSSES = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}
OWN = "own"
"""The network, loss and targets that the laws try these methods with."""
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


@st.composite
def arguments(draw: Any, name: str) -> dict[str, Any]:
    """Those of the laws, with some strengths at other values: nothing, a little, a lot, or what cannot be."""
    given = arguments_of(name)
    for strength in strengths(methods()[name].load()):
        value = draw(st.sampled_from([None] * 12 + [0.0, 1e-3, 0.3, 1.0, 10.0, -1.0]))
        if value is not None:
            given[strength] = value
    return given


@st.composite
def trainings(draw: Any) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(METHODS), min_size=1, max_size=4, unique=True))
    model = draw(st.sampled_from([*[OWN] * 6, *sorted(MODELS)]))
    return {
        "methods": {name: draw(arguments(name)) for name in names},
        "model": model,
        "loss": draw(st.sampled_from([*[OWN] * 4, *sorted(LOSSES)]))
        if model == OWN
        else draw(st.sampled_from(sorted(LOSSES))),
        "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))),
        "batch": draw(st.sampled_from([2, 3, 8] if model == "mlp" else [1, 2, 3, 8])),  # torch's own batch norm
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
        "soft": draw(st.booleans()),
        "weighted": draw(st.booleans()),
        "scale": draw(st.sampled_from([0.0, 1.0, 1.0, 1e4])),
        "ids": draw(st.sampled_from([True] * 9 + [False])),
    }


def train(training: dict[str, Any]) -> None:
    """Three steps, an end of a task and of an epoch, and export; every value along the way must be finite."""
    torch.manual_seed(0)
    dtype, rows = training["dtype"], training["batch"]
    made = [methods()[name].load()(**given) for name, given in training["methods"].items()]
    problem, own = problem_of(*training["methods"]), training["loss"] == OWN
    base, output = (problem.base, problem.output) if own else (LOSSES[training["loss"]], None)
    recipe = tikhon.Recipe(*made, base=base, output=output, seed=1)
    model = network(problem=problem) if training["model"] == OWN else MODELS[training["model"]]()
    recipe.prepare(model.to(dtype), samples=SAMPLES)
    optimizer = OPTIMIZERS[training["optimizer"]](model.parameters())
    recipe.attach(optimizer, steps=STEPS, epochs=1)
    inputs = training["scale"] * torch.randn(rows, 1, 6, 6, dtype=dtype)
    labels = torch.arange(rows) % CLASSES
    if own:
        target = problem.target(labels)
        target = target.to(dtype) if target.is_floating_point() else target
    else:
        target = F.one_hot(labels, CLASSES).to(dtype) if training["soft"] or training["loss"] == "mse" else labels
    recipe.end_task([(inputs, target)])
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = recipe.loss(
            inputs,
            target,
            index=torch.arange(rows) if training["ids"] else None,
            weight=torch.rand(rows, dtype=dtype) if training["weighted"] else None,
        )
        assert loss.isfinite()
        loss.backward()
        optimizer.step()
    recipe.end_epoch()
    for name, value in recipe.export().state_dict().items():
        assert not isinstance(value, Tensor) or value.double().isfinite().all(), name


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(trainings())
def test_a_random_recipe_trains_finitely_or_is_refused(training: dict[str, Any]) -> None:
    try:
        train(training)
        COUNTS["trained"] += 1
    except TikhonError:
        COUNTS["refused"] += 1


def test_both_happened() -> None:
    """What was counted, so that a strategy that only ever draws what is refused shows."""
    print(dict(COUNTS))
    if COUNTS:
        assert min(COUNTS["trained"], COUNTS["refused"]) > sum(COUNTS.values()) / 20
