"""What a model is trained and judged on: three splits and what is known about them."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tikhon.core.errors import TikhonError


@dataclass(frozen=True)
class Split:
    """Samples and what to predict for them.

    inputs: (B, ...) float32. target: (B,) int64 labels, or (B,) or (B, D) float32 values.
    """

    inputs: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.target):
            raise TikhonError(f"a split has {len(self.inputs)} inputs but {len(self.target)} targets")

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, indices: Tensor) -> "Split":
        """The samples at `indices` (n,), in that order."""
        return Split(self.inputs[indices], self.target[indices])


@dataclass(frozen=True)
class Task:
    """A data set, split and (where asked for) corrupted, ready to train on.

    kind: "classes" (labels 0 .. classes - 1) or "values" (regression; `classes` is None).
    clean_target: the training target before label noise, aligned with `train`: for measuring memorisation, never
    for training. The test split is never noisy.
    """

    name: str
    kind: Literal["classes", "values"]
    classes: int | None
    train: Split
    validation: Split
    test: Split
    clean_target: Tensor
    description: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def outputs(self) -> int:
        """How many numbers a model must give for one sample: the classes, or the values."""
        if self.classes is not None:
            return self.classes
        return self.train.target.shape[1] if self.train.target.ndim == 2 else 1
