"""StepMean: what the micro-batches of one optimizer step each measured, averaged over their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.memory import Gather


class StepMean(nn.Module):
    """The mean, over the samples of one optimizer step, of tensors that each micro-batch gives.

    `add` stages a micro-batch's; `value` is read in `gradients`, when the step is complete; with the step that happens,
    or does not, all is forgotten. As with a `PerSampleMemory`, what a refused batch gave is forgotten too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._staged: list[tuple[int, list[Tensor]]] = []

    def add(self, samples: int, tensors: Sequence[Tensor]) -> None:
        """Stage what a micro-batch of so many samples measured: of the same shapes at every call."""
        self._staged.append((samples, [one.detach() for one in tensors]))

    @property
    def staged(self) -> int:
        """How many micro-batches there are."""
        return len(self._staged)

    def value(self) -> list[Tensor]:
        """The mean over the samples of every micro-batch and process."""
        samples = sum(count for count, _ in self._staged)
        sums = [torch.zeros_like(one) for one in self._staged[0][1]]
        for count, tensors in self._staged:
            torch._foreach_add_(sums, tensors, alpha=count)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return list(torch._foreach_div(sums, samples))
        everywhere = sums[0].new_tensor(samples)
        for one in (everywhere, *sums):
            torch.distributed.all_reduce(one)
        return list(torch._foreach_div(sums, everywhere))

    def commit(self, gather: Gather | None = None) -> None:
        """The step happened."""
        self._staged = []

    def rewind(self, writes: int) -> None:
        """Forget all but the first micro-batches: the step was skipped, or is evaluated again."""
        del self._staged[writes:]

    def get_extra_state(self) -> list[Any]:
        return [[count, list(tensors)] for count, tensors in self._staged]

    def set_extra_state(self, state: list[Any]) -> None:
        self._staged = [(count, [one.clone() for one in tensors]) for count, tensors in state]
