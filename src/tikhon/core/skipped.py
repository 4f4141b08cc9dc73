"""What training has passed over so far: optimizer steps that were skipped, and samples that methods left out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tikhon.core.target import Target


class Skipped:
    """Counts that go on after a resume. Samples count once their step really happened, each time they are left out."""

    def __init__(self) -> None:
        self.steps = 0
        self._samples: Tensor | int = 0  # a tensor on the model's device, which no step waits for
        self._staged: dict[int, Tensor] = {}

    def stage(self, micro: int, target: Target, given: Tensor | None) -> None:
        """Count the samples of a micro-batch whose weight is zero in the final target and was not as `given`."""
        weight = target.parts[0].weight
        if weight is not None and weight is not given:
            out = weight == 0
            if given is not None:  # rows that methods added come after the caller's
                out = out[: len(given)] & (given != 0)
            self._staged[micro] = out.sum()

    def rewind(self, micro: int) -> None:
        """Back to an earlier micro-batch of this step."""
        self._staged = {number: count for number, count in self._staged.items() if number < micro}

    def commit(self) -> None:
        for count in self._staged.values():
            self._samples = self._samples + count
        self._staged = {}

    def state(self) -> dict[str, int]:
        return {"steps": self.steps, "samples": int(self._samples)}

    def load(self, state: Mapping[str, int]) -> None:
        self.steps, self._samples, self._staged = state["steps"], state["samples"], {}
