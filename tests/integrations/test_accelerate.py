"""Accelerate: the plain loop's weights, accumulation, and its own files of the state."""

from __future__ import annotations

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from tikhon.integrations.accelerate import attach

from .common import BATCH, EPOCHS, SAMPLES, loader, network, optimizer, plainly, recipe, same

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _fresh():
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def ready(accumulate=1):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    mine = recipe()
    model = mine.prepare(network(), samples=SAMPLES)
    model, chosen, batches = accelerator.prepare(model, optimizer(model.parameters()), loader())
    attach(accelerator, mine, model, chosen, steps=EPOCHS * SAMPLES // BATCH // accumulate, epochs=EPOCHS)
    return accelerator, mine, model, chosen, batches


def train(accelerator, mine, model, chosen, batches, epochs=EPOCHS):
    for _ in range(epochs):
        model.train()
        for index, x, y in batches:
            with accelerator.accumulate(model):
                accelerator.backward(mine.loss(x, y, index=index))
                chosen.step()
                chosen.zero_grad()
        mine.end_epoch()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_weights_of_the_plain_loop(accumulate) -> None:
    accelerator, mine, model, *rest = ready(accumulate)
    train(accelerator, mine, model, *rest)
    expected, plain = plainly(accumulate)
    assert mine.step == expected.step
    same(accelerator.unwrap_model(model), plain)
    same(mine.export(), expected.export())


def test_a_resumed_run_has_the_weights_of_an_undisturbed_one(tmp_path) -> None:
    accelerator, *first = ready()
    train(accelerator, *first, epochs=1)
    accelerator.save_state(str(tmp_path))
    accelerator, mine, *second = ready()
    accelerator.load_state(str(tmp_path))
    assert mine.step == SAMPLES // BATCH
    train(accelerator, mine, *second, epochs=EPOCHS - 1)
    expected, plain = plainly()
    same(accelerator.unwrap_model(second[0]), plain)
    same(mine.export(), expected.export())
