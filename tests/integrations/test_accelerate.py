"""Accelerate: the plain loop's weights, accumulation, and its own files of the state."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

import tikhon
from tikhon.integrations.accelerate import attach

from .common import BATCH, EPOCHS, SAMPLES, data, graphs, loader, network, optimizer, overflowing, plainly, recipe, same

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _fresh():
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def ready(accumulate=1, **settings):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate, **settings)
    if accelerator.mixed_precision == "fp16":  # which Accelerate leaves out on CPUs
        accelerator.native_amp, accelerator.scaler = True, overflowing()
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


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("precision", "cast"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_has_the_weights_of_the_plain_loop(precision, cast, accumulate) -> None:
    accelerator, mine, model, *rest = ready(accumulate, mixed_precision=precision)
    train(accelerator, mine, model, *rest)
    expected, plain = plainly(accumulate, cast=cast)
    assert mine.step == expected.step
    assert (mine.step < EPOCHS * SAMPLES // BATCH // accumulate) == (cast is torch.float16)
    same(accelerator.unwrap_model(model), plain)
    same(mine.export(), expected.export())


@pytest.mark.parametrize(("precision", "cast"), [("no", None), ("bf16", torch.bfloat16)])
def test_compiled_it_has_the_weights_of_the_plain_loop(precision, cast) -> None:
    graphs()
    accelerator, mine, model, *rest = ready(dynamo_backend="eager", mixed_precision=precision)
    train(accelerator, mine, model, *rest)
    expected, plain = plainly(cast=cast)
    assert graphs() == 1
    same(model, plain)
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


def test_a_doctor_is_asked_after_each_epoch_and_saved_with_the_rest(tmp_path) -> None:
    accelerator, mine, model, *rest = ready()
    doctor = tikhon.Doctor(data(), data())
    accelerator.register_for_checkpointing(doctor)
    for _ in range(2):
        train(accelerator, mine, model, *rest, epochs=1)
        doctor.end_epoch(mine)
    accelerator.save_state(tmp_path)
    seen = doctor.state_dict()
    doctor.end_epoch(model)  # wrapped as it is
    assert len(doctor.history["test_metric"]) == 3
    accelerator.load_state(tmp_path)
    assert doctor.state_dict() == seen
