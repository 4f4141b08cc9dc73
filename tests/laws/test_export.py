"""Export leaves plain torch: the trained model's outputs, and nothing of tikhon in or around it."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch.nn.utils import parametrize

from .rows import CLASSIFICATION, METHODS, make, problem_of
from .training import STEPS, Net, Training, data, network, obeys


@pytest.fixture(scope="module", params=METHODS)
def exported(request):
    """(method, outputs of the trained model as deployed, the exported model, its optimizer)"""
    obeys(request.param, "export")
    torch.manual_seed(0)
    method = make(request.param)
    training = Training.of(
        method, model=network(dropout=0.2, dtype=torch.float64, problem=problem_of(request.param))
    ).until(STEPS)
    inputs, _ = data(torch.float64)
    training.model.eval()
    with training.recipe.deployed() as deployed, torch.no_grad():
        outputs = deployed(inputs)
    training.model.train()
    return method, outputs, training.recipe.export(), training.optimizer


def outputs_of(model):
    with torch.no_grad():
        return model.eval()(data(torch.float64)[0])


@pytest.mark.environment("export", by="exported")
def test_outputs_are_those_of_the_deployed_model(exported):
    _, outputs, model, _ = exported
    torch.testing.assert_close(outputs_of(model), outputs, rtol=1e-9, atol=1e-9)


def test_state_loads_into_a_fresh_plain_model(exported):
    method, outputs, model, _ = exported
    fresh = network(dtype=torch.float64, problem=problem_of(method.key))
    if hasattr(method, "plan"):  # what a method that prunes has kept
        assert method.plan, "nothing was pruned: give the method stronger arguments in tests/laws/rows.py"
        from tikhon.core.pruning import apply_plan

        apply_plan(fresh, method.plan)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(outputs_of(fresh), outputs, rtol=1e-9, atol=1e-9)


def test_nothing_of_tikhon_is_left(exported):
    method, _, model, optimizer = exported
    fresh = network(problem=problem_of(method.key))
    own = {type(module) for module in fresh.modules()}
    assert type(model) is Net
    for name, module in model.named_modules():
        assert type(module).__module__.startswith("torch.nn.") or type(module) in own, f"{name} is a {type(module)}"
        hooks = [
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
            module._state_dict_hooks,
            module._state_dict_pre_hooks,
            module._load_state_dict_pre_hooks,
            module._load_state_dict_post_hooks,
        ]
        assert not any(hooks), f"{name} has a hook: {hooks}"
        assert not parametrize.is_parametrized(module), f"{name} is parametrized"
        known = set(vars(fresh.get_submodule(name)))
        assert set(vars(module)) <= known, f"{name} has gained {set(vars(module)) - known}"
    for name, parameter in model.named_parameters():
        assert parameter.is_leaf, f"{name} is not a leaf"
        assert parameter.requires_grad, f"{name} does not require a gradient any more"
        assert not parameter._backward_hooks, f"{name} has a hook"
        assert not getattr(parameter, "_post_accumulate_grad_hooks", None), f"{name} has a hook"
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_it_copies_and_pickles_without_tikhon(exported):
    method, outputs, model, _ = exported
    file = io.BytesIO()
    torch.save(model, file)
    if problem_of(method.key).network is CLASSIFICATION.network:  # else a block of tikhon is part of the network
        assert b"tikhon" not in file.getvalue()
    file.seek(0)
    for copied in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        torch.testing.assert_close(outputs_of(copied), outputs, rtol=1e-9, atol=1e-9)
