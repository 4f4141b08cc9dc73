"""Extra passes: run a model again without moving its running statistics or anybody's random numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RandomState:
    """The state of torch's global generators on the CPU and on the model's device."""

    cpu: Tensor
    device: torch.device
    accelerator: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        accelerator = None
        if device.type != "cpu":
            accelerator = torch.get_device_module(device).get_rng_state(device)
        return cls(torch.get_rng_state(), device, accelerator)

    @classmethod
    def of_seed(cls, seed: int, device: torch.device) -> RandomState:
        """As `torch.manual_seed(seed)` leaves the two generators."""

        def state(where: torch.device | str) -> Tensor:
            return torch.Generator(where).manual_seed(seed).get_state()

        return cls(state("cpu"), device, None if device.type == "cpu" else state(device))

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            torch.get_device_module(self.device).set_rng_state(self.accelerator, self.device)


class Passing:
    """Which pass is under way, for hooks inside the model. The copy that a copied model's hooks have says "none"."""

    def __init__(self) -> None:
        self._of_loss = False
        self.inside = False  # any pass that the recipe started

    @property
    def of_loss(self) -> bool:
        """Whether it is one of the loss, further ones and what checkpoints compute again included; not an extra pass
        of a method, nor one of the caller's own."""
        if self._of_loss or torch.compiler.is_compiling():
            return self._of_loss
        return torch._C._current_graph_task_id() != -1  # in backward, where only checkpoints run a model

    def begin(self, of_loss: bool) -> tuple[bool, bool]:
        """A pass is under way now: one of the loss or an extra one. Returns what `end` needs."""
        outer = self._of_loss, self.inside
        self._of_loss, self.inside = of_loss, True
        return outer

    def end(self, outer: tuple[bool, bool]) -> None:
        self._of_loss, self.inside = outer

    @contextmanager
    def during(self, of_loss: bool) -> Iterator[None]:
        """Inside, a pass is under way."""
        outer = self.begin(of_loss)
        try:
            yield
        finally:
            self.end(outer)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, forward passes use batch statistics as in training but leave every buffer of the model as it was.

    Modules that train get copies of their buffers for the time being. Nothing is written back in place, so graphs that
    saved a buffer stay valid.
    """
    swapped: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
    for module in model.modules():
        if module.training and module._buffers:
            swapped.append((module, dict(module._buffers)))
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for module, buffers in swapped:
            module._buffers.update(buffers)


class Statistics:
    """Running statistics of a model's norms, kept while a batch is in hand so that a refused one leaves no trace."""

    def __init__(self, model: nn.Module) -> None:
        self.norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []

    def keep(self) -> None:
        # Looked up at every batch: moving a model to a device replaces its buffers.
        training = [norm._buffers.values() for norm in self.norms if norm.training]
        buffers = [buffer for own in training for buffer in own if buffer is not None]
        if buffers and len(buffers) == len(self._buffers) and all(map(is_, buffers, self._buffers)):
            torch._foreach_copy_(self._kept, buffers)  # into memory that is there, in a tenth of the time
        else:
            self._buffers, self._kept = buffers, [buffer.clone() for buffer in buffers]

    def restore(self) -> None:
        for buffer, before in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode and nothing records gradients; every module's mode returns."""
    with eval_mode(model), torch.no_grad():
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode, with or without gradient; every module's mode returns."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as it is, apart from the one that trains: in eval mode and without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, DistributedDataParallel and DataParallel."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        else:
            return model
