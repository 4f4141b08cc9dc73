"""The mathematics of every method: gradients, precision, torch.func and compilation of its public functions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .rows import FUNCTIONS, Draw, public_functions
from .training import obeys

FOUND = public_functions()
TABLED = sorted(set(FOUND) & set(FUNCTIONS))


def cast(arguments, dtype):
    """The arguments with their floating-point tensors in another type; copies, so that nothing is shared."""

    def one(value):
        if not isinstance(value, Tensor):
            return value
        return value.detach().to(dtype, copy=True) if value.is_floating_point() else value.clone()

    return pytree.tree_map(one, arguments)


def sample(key, dtype=torch.float64):
    return cast(FUNCTIONS[key].arguments(Draw()), dtype)


def called(key, arguments, function=None):
    """The tensors that a function gives; what it wrote, if it writes in place."""
    result = (function or FOUND[key])(*arguments)
    if FUNCTIONS[key].in_place:
        assert result is None, f"{key} writes in place and returns something as well"
        result = arguments[0]
    return [one for one in pytree.tree_leaves(result) if isinstance(one, Tensor)]


def floating(arguments):
    return [one for one in pytree.tree_leaves(arguments) if isinstance(one, Tensor) and one.is_floating_point()]


def as_function_of_floats(key):
    """The function of its floating-point tensors alone, and these."""
    leaves, structure = pytree.tree_flatten(sample(key))
    places = [i for i, one in enumerate(leaves) if isinstance(one, Tensor) and one.is_floating_point()]

    def function(*floats):
        filled = list(leaves)
        for place, value in zip(places, floats, strict=True):
            filled[place] = value
        found = called(key, pytree.tree_unflatten(filled, structure))
        return tuple(one for one in found if one.is_floating_point())

    return function, [leaves[i] for i in places]


@pytest.mark.parametrize("key", sorted(FOUND))
def test_every_public_function_has_a_row(key):
    assert key in FUNCTIONS, (
        f"{key} is public and takes tensors: add to FUNCTIONS in tests/laws/rows.py a row such as "
        f'"{key}": Function(lambda d: (d.normal(4, 3), 0.1)), with inputs that fit it; or make it private.'
    )


def having(**wanted):
    return [key for key in TABLED if all(getattr(FUNCTIONS[key], name) == value for name, value in wanted.items())]


@pytest.mark.parametrize("key", having(differentiable=True, in_place=False))
def test_gradients_are_those_of_finite_differences(key):
    obeys(key.partition(".")[0], "precision")
    function, floats = as_function_of_floats(key)
    assert torch.autograd.gradcheck(function, [one.requires_grad_() for one in floats])


@pytest.mark.parametrize("key", TABLED)
def test_float32_agrees_with_float64(key):
    obeys(key.partition(".")[0], "precision")
    exact, single = called(key, sample(key)), called(key, sample(key, torch.float32))
    for one, other in zip(exact, single, strict=True):
        assert one.is_floating_point() == other.is_floating_point()
        torch.testing.assert_close(other.double(), one.double(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("key", having(bfloat16=True))
def test_bfloat16_stays_finite_backward_too(key):
    obeys(key.partition(".")[0], "precision")
    arguments = sample(key, torch.bfloat16)
    floats = floating(arguments)
    if FUNCTIONS[key].differentiable and not FUNCTIONS[key].in_place:
        for one in floats:
            one.requires_grad_()
    found = [one for one in called(key, arguments) if one.is_floating_point()]
    assert all(one.isfinite().all() for one in found)
    if floats and floats[0].requires_grad:
        sum(one.float().sum() for one in found).backward()
        assert all(one.grad is None or one.grad.isfinite().all() for one in floats)


@pytest.mark.parametrize("key", having(in_place=False))
def test_arguments_stay_untouched(key):
    obeys(key.partition(".")[0], "untouched")
    arguments = sample(key)
    before = copy.deepcopy(arguments)
    held = [one for one in pytree.tree_leaves(arguments) if isinstance(one, Tensor)]
    versions = [one._version for one in held]
    called(key, arguments)
    assert [one._version for one in held] == versions
    for one, other in zip(pytree.tree_leaves(before), pytree.tree_leaves(arguments), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("key", having(differentiable=True, in_place=False))
def test_gradients_under_torch_func(key):
    obeys(key.partition(".")[0], "precision")
    function, floats = as_function_of_floats(key)

    def total(*floats):
        return sum((one * one).sum() for one in function(*floats))

    found = torch.func.grad(total, argnums=tuple(range(len(floats))))(*floats)
    expected = torch.autograd.grad(total(*[one.requires_grad_() for one in floats]), floats, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


@pytest.mark.parametrize("key", having(vmap=True, in_place=False))
def test_maps_under_torch_func(key):
    obeys(key.partition(".")[0], "precision")
    function, floats = as_function_of_floats(key)
    several = [[one, one.flip(0), 0.5 * one] for one in floats]
    mapped = torch.func.vmap(function)(*[torch.stack(ones) for ones in several])
    for i in range(3):
        for found, expected in zip(mapped, function(*[ones[i] for ones in several]), strict=True):
            torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("key", having(compiles=True))
def test_compiles_without_graph_breaks(key):
    obeys(key.partition(".")[0], "compile")
    torch._dynamo.reset()
    compiled = torch.compile(FOUND[key], backend="eager", fullgraph=True)
    for found, expected in zip(called(key, sample(key), compiled), called(key, sample(key)), strict=True):
        torch.testing.assert_close(found, expected)
