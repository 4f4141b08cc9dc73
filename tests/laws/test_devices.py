"""The laws on every device that is here: what is on the CPU alone so far is named by the skipped tests."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .rows import METHODS, make, make_neutral, problem_of
from .test_functions import TABLED, called, sample
from .training import STEPS, Training, data, differing, network, obeys, plainly, sgd, state_of, tensors

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")],
    ),
]

pytestmark = pytest.mark.parametrize("device", DEVICES)


def places(state: object) -> set[str]:
    """The types of the devices on which the tensors of a state are."""
    return {one.device.type for one in pytree.tree_leaves(state) if isinstance(one, Tensor)}


def started(name: str, device: str) -> Training:
    torch.manual_seed(0)
    return Training.of(make(name), device=device)


@pytest.mark.parametrize("name", METHODS)
def test_neutral_is_plain_training(name, device):
    obeys(name, "neutral")
    problem = problem_of(name)
    torch.manual_seed(0)
    expected = plainly(network(problem=problem, device=device), sgd, STEPS, problem)
    torch.manual_seed(0)
    trained = Training.of(make_neutral(name), device=device).until(STEPS)
    same_names = set(trained.model.state_dict()) == set(expected)
    found = tensors(trained.model if same_names else trained.recipe.export())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_training_resumes_where_its_device_is(name, device):
    obeys(name, "resume")
    training = started(name, device).until(3)
    saved, random = copy.deepcopy(state_of(training)), torch.get_rng_state()
    ended = tensors(training.until(STEPS).model)
    again = started(name, device)
    again.model.load_state_dict(saved["model"])
    again.optimizer.load_state_dict(saved["optimizer"])
    again.recipe.load_state_dict(saved["recipe"])
    again.done = 3
    torch.set_rng_state(random)
    found = tensors(again.until(STEPS).model)
    assert places(found) == {device}
    assert places(saved["recipe"]) <= {device}, f"{name} keeps state on another device than the model's"
    if device == "cpu":
        assert not differing(found, ended)
    for key, value in ended.items():
        torch.testing.assert_close(found[key], value, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", METHODS)
def test_export_has_the_outputs_of_the_deployed_model(name, device):
    obeys(name, "export")
    training = started(name, device).until(STEPS)
    inputs, _ = data(problem=training.problem, device=device)
    training.model.eval()
    with training.recipe.deployed() as deployed, torch.no_grad():
        expected = deployed(inputs)
    exported = training.recipe.export().eval()
    assert places(exported.state_dict()) == {device}
    with torch.no_grad():
        torch.testing.assert_close(exported(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("key", TABLED)
def test_functions_compute_on_it_what_they_do_on_the_cpu(key, device):
    obeys(key.partition(".")[0], "precision")
    arguments = pytree.tree_map(lambda one: one.to(device) if isinstance(one, Tensor) else one, sample(key))
    generators = [one for one in pytree.tree_leaves(arguments) if isinstance(one, torch.Generator)]
    if device != "cpu" and (
        generators or any(isinstance(one, torch.nn.Module) for one in pytree.tree_leaves(arguments))
    ):
        pytest.skip("its row has a generator or a network of the CPU")

    for found, expected in zip(called(key, arguments), called(key, sample(key)), strict=True):
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected)
