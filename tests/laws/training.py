"""The small training that the laws look at: three epochs of two steps on a network with everything that matters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.core.catalogue import methods as every_method
from tikhon.core.method import Method

from .rows import CLASSIFICATION, ROWS, Row, problem_of

Device = str | torch.device
SAMPLES, BATCH, CLASSES = 32, 16, 4
STEPS_AN_EPOCH = SAMPLES // BATCH
STEPS, EPOCHS = 6, 3


class Net(nn.Module):
    """Convolutions, a hidden layer and a classifier; batch norm and dropout where a law can bear them."""

    def __init__(self, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.first_norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.second = nn.Conv2d(4, 6, 3)
        self.second_norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.hidden = nn.Linear(24, 12)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        features = F.relu(self.first_norm(self.first(inputs)))
        features = F.relu(self.second_norm(self.second(features)))
        return self.head(self.dropout(F.relu(self.hidden(features.flatten(1)))))


def network(
    norm: bool = True,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
    problem: Row = CLASSIFICATION,
    device: Device = "cpu",
) -> Net:
    """The same initial weights at every call; the caller's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = Net(norm, dropout)
        problem.network(made)
        return made.to(device, dtype)


def data(
    dtype: torch.dtype = torch.float32, problem: Row = CLASSIFICATION, device: Device = "cpu"
) -> tuple[Tensor, Tensor]:
    """32 images of four classes that differ in brightness and shape, and what is to be learned of them."""
    generator = torch.Generator().manual_seed(11)
    labels = torch.arange(SAMPLES) % CLASSES
    patterns = torch.randn(CLASSES, 1, 6, 6, generator=generator)
    images = patterns[labels] + 0.5 * torch.randn(SAMPLES, 1, 6, 6, generator=generator)
    target = problem.target(labels)
    return images.to(device, dtype), target.to(device, dtype if target.is_floating_point() else target.dtype)


def batches(
    begin: int,
    end: int,
    dtype: torch.dtype = torch.float32,
    problem: Row = CLASSIFICATION,
    device: Device = "cpu",
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(index, inputs, target) of steps begin..end - 1; every epoch has an order of its own. The index is on the CPU."""
    inputs, labels = data(dtype, problem, device)
    for step in range(begin, end):
        epoch, place = divmod(step, STEPS_AN_EPOCH)
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(epoch))
        index = order[place * BATCH : (place + 1) * BATCH]
        yield index, inputs[index], labels[index]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


@dataclass
class Training:
    """A recipe, the model that it prepared and the optimizer that it rides on."""

    recipe: tikhon.Recipe
    model: nn.Module
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype = torch.float32
    problem: Row = CLASSIFICATION
    device: Device = "cpu"
    done: int = 0

    @classmethod
    def of(
        cls,
        *methods: Method,
        model: nn.Module | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] = sgd,
        compiled: Callable[[nn.Module], Any] | None = None,
        problem: Row | None = None,
        device: Device = "cpu",
    ) -> Training:
        """`device`: of the network, unless a `model` is given, which has one."""
        problem = problem or problem_of(*[method.key for method in methods])
        recipe = tikhon.Recipe(*methods, base=problem.base, output=problem.output, seed=5)
        model = network(problem=problem, device=device) if model is None else model
        prepared = recipe.prepare(model, samples=SAMPLES)
        called = compiled(prepared) if compiled else None
        chosen = optimizer(prepared.parameters())
        recipe.attach(chosen, model=called, steps=STEPS, epochs=EPOCHS)
        for key in recipe.methods:
            ROWS.get(key, Row()).begin(recipe)
        like = next(prepared.parameters())
        return cls(recipe, prepared, chosen, like.dtype, problem, like.device)

    def until(self, step: int, between: Callable[[], object] = lambda: None) -> Training:
        """Train on, up to this step; `between` is called before every step."""
        for index, inputs, labels in batches(self.done, step, self.dtype, self.problem, self.device):
            between()
            self.optimizer.zero_grad()
            loss = self.recipe.loss(inputs, labels, index=index)
            assert torch.isfinite(loss), f"the loss is {loss.item()} at step {self.done}"
            loss.backward()
            self.optimizer.step()
            self.done += 1
            if self.done % STEPS_AN_EPOCH == 0:
                self.recipe.end_epoch()
        return self


def plainly(
    model: nn.Module,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    steps: int,
    problem: Row = CLASSIFICATION,
) -> dict[str, Tensor]:
    """The loop that everybody writes, without tikhon."""
    chosen = optimizer(model.parameters())
    like = next(model.parameters())
    for _, inputs, labels in batches(0, steps, like.dtype, problem, like.device):
        chosen.zero_grad()
        output = model(inputs)
        problem.base(output if problem.output is None else problem.output(output), labels).backward()
        chosen.step()
    return model.state_dict()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def differing(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two states differ, to the bit (NaN equals NaN)."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = (
            one.dtype == other.dtype and one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
        )
        return [] if same and torch.equal(one.isnan(), other.isnan()) else [at]
    if isinstance(one, dict) and isinstance(other, dict):
        if list(map(str, sorted(map(str, one)))) != list(map(str, sorted(map(str, other)))):
            return [f"{at}: {sorted(map(str, one))} against {sorted(map(str, other))}"]
        return [place for key in one for place in differing(one[key], other[key], f"{at}/{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return [f"{at}: {len(one)} against {len(other)}"]
        return [
            place for i, (a, b) in enumerate(zip(one, other, strict=True)) for place in differing(a, b, f"{at}/{i}")
        ]
    return [] if one == other else [f"{at}: {one} against {other}"]


def obeys(name: str, law: str) -> None:
    """Skip, with the method's own reason, where it declares that it cannot obey this law."""
    listing = every_method().get(name)  # what methods share is exempt from nothing
    why = listing and listing.load().exempt.get(law)
    if why is not None:
        pytest.skip(f"{name} is exempt from {law}: {why}")


def state_of(training: Training) -> dict[str, Any]:
    """Everything of a training that must survive."""
    return {
        "recipe": copy.deepcopy(training.recipe.state_dict()),
        "model": tensors(training.model),
        "optimizer": copy.deepcopy(training.optimizer.state_dict()),
    }
