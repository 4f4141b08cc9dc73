"""Declared passes are those that are counted: on a small network, in a step of every method that classifies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as every_module
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tikhon.core.catalogue import methods
from tikhon.core.recipe import Recipe
from tikhon.studies.arms import example, parse_arm
from tikhon.studies.cost import MeasuredStep, PlainStep, TrainingStep
from tikhon.studies.passes import PASSES, Passes

BATCH, CLASSES = 16, 4
CLASSIFYING = sorted(name for name, listing in methods().items() if listing.classifies)


class First(nn.Conv2d):
    """Where gradients that pass back through the network are counted."""


class Network(nn.Sequential):
    """Copies of it are counted too, and no activation has the shape of a parameter."""

    def __init__(self) -> None:
        super().__init__(
            First(1, 7, 3),
            nn.BatchNorm2d(7),
            nn.ReLU(),
            nn.Conv2d(7, 9, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(9 * 16, 37),
            nn.ReLU(),
            nn.Linear(37, CLASSES),
        )


class Sweeps(TorchDispatchMode):
    """Counts operations on nothing but parameters and numbers of their units; one on all parameters is a sweep.

    Weights are looked at as matrices too, and multiplied with vectors: they are passed over all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        parameters = list(Network().parameters())  # methods may add some, or take some away
        self._shapes = {shape for one in parameters for shape in self._of(one)}
        self._all = sum(one.numel() for one in parameters)
        self._elements = 0

    @staticmethod
    def _of(parameter: Tensor) -> Iterator[torch.Size]:
        yield parameter.shape
        if parameter.ndim > 1:
            matrix = parameter.flatten(1)
            yield torch.Size([len(parameter), *[1] * (parameter.ndim - 1)])
            yield from (matrix.shape, matrix.T.shape, matrix[0].shape)
            yield from (matrix[:, :1].shape, matrix[:1].shape)

    @property
    def number(self) -> float:
        return self._elements / self._all

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.ndim]
        result = func(*args, **(kwargs or {}))
        if tensors and not func.is_view and all(one.shape in self._shapes for one in tensors):
            if isinstance(args[0], (list, tuple)):
                self._elements += sum(one.numel() for one in args[0])
            else:
                self._elements += max(one.numel() for one in pytree.tree_leaves((tensors, result)))
        return result


@contextmanager
def watched() -> Iterator[Counter[str]]:
    """Inside, rows are counted that pass through a network, and those whose gradient passes back."""
    rows: Counter[str] = Counter()

    def enter(module: nn.Module, args: Any) -> None:
        if isinstance(module, Network):
            rows["forward"] += len(args[0])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, First):
            follow(output)

    def follow(values: Any) -> None:
        if isinstance(values, Tensor) and values.requires_grad:
            values.register_hook(back)

    def back(gradient: Tensor) -> None:
        rows["backward"] += len(gradient)
        follow(gradient)  # where the way back is differentiated itself

    handles = [
        every_module.register_module_forward_pre_hook(enter),
        every_module.register_module_forward_hook(leave),
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def counted(step: MeasuredStep) -> tuple[float, float, float]:
    """Forward and backward passes of the batch and sweeps over the parameters in one step."""
    for _ in range(3):
        step()
    with watched() as rows, Sweeps() as sweeps:
        step()
    return rows["forward"] / BATCH, rows["backward"] / BATCH, sweeps.number


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(BATCH) % CLASSES


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


@pytest.fixture(scope="module")
def plain() -> tuple[float, float, float]:
    return counted(PlainStep(F.cross_entropy, Network(), *batch(), sgd))


def test_plain_training_is_a_pass_forward_one_backward_and_the_sweeps_of_sgd(plain: tuple[float, ...]) -> None:
    # Momentum is multiplied, the gradient added to it, and it to the weights.
    assert plain == (1.0, 1.0, 3.0)


@pytest.mark.parametrize("name", CLASSIFYING)
def test_the_declared_passes_are_those_of_a_step(name: str, plain: tuple[float, ...]) -> None:
    step = TrainingStep(Recipe(*parse_arm(example(name)).methods()), Network(), *batch(), sgd)
    # Adapters leave layers out of the way back and of the sweeps: nothing is declared for that.
    forward, backward, sweeps = (max(0.0, own - base) for own, base in zip(counted(step), plain, strict=True))
    declared = PASSES.get(name, Passes())
    if name != "ibp":  # bounds go through the layers by rules of their own, two numbers for each activation
        assert (forward, backward) == (declared.forward, declared.backward)
    assert abs(sweeps - declared.sweeps) <= 0.5, sweeps


def test_only_methods_declare_passes() -> None:
    assert set(PASSES) <= set(CLASSIFYING)
