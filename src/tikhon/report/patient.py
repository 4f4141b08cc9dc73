"""The patient of `tikhon doctor`: a trained model with its data, checked, and what the model makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.fit import History
from tikhon.core.outputs import read_outputs
from tikhon.core.passes import evaluating
from tikhon.data.seeds import torch_generator
from tikhon.report.curves import Curves, curves_of

Pair = tuple[Tensor, Tensor]
Kind = Literal["classes", "values"]


class Data(Protocol):
    """What checks of the data read."""

    @property
    def train(self) -> Pair: ...

    @property
    def test(self) -> Pair: ...

    @property
    def kind(self) -> Kind: ...


class Trained(Protocol):
    """What checks of the history read."""

    @property
    def histories(self) -> list[dict[str, list[float]]]:
        """The curves of each training."""


@dataclass(frozen=True)
class Patient:
    """A trained model and the data that it is to be examined with.

    model: in any mode, on any device; it is looked at in eval mode and left as it was. train, test: (inputs, labels),
    inputs (B, ...) as the model takes them, without augmentation; labels (B,) integers from 0 on, or floating values of
    the shape of the model's output; history: of the training, as `tikhon.fit` returns one and `tikhon.Doctor` keeps
    one, or curves by name (`report.curves`). Errors: TikhonError for what does not fit together.

    >>> inputs, labels = torch.ones(4, 2), torch.tensor([0, 1, 1, 0])
    >>> Patient(nn.Linear(2, 2), train=(inputs, labels), test=(inputs, labels)).kind
    'classes'
    """

    model: nn.Module
    train: Pair
    test: Pair
    history: History | Curves | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TikhonError(f"The model is {type(self.model).__name__}; an nn.Module is needed.")
        for name, pair in (("train", self.train), ("test", self.test)):
            refuse_odd(name, pair)
        (inputs, labels), (others, other_labels) = self.train, self.test
        if inputs.shape[1:] != others.shape[1:] or inputs.dtype != others.dtype:
            raise TikhonError(
                f"Training inputs are {inputs.dtype} {tuple(inputs.shape[1:])} each and test inputs {others.dtype} "
                f"{tuple(others.shape[1:])}; both must be as the model takes them."
            )
        if labels.is_floating_point() != other_labels.is_floating_point() or labels.shape[1:] != other_labels.shape[1:]:
            raise TikhonError(
                f"Training labels are {labels.dtype} {tuple(labels.shape)} and test labels {other_labels.dtype} "
                f"{tuple(other_labels.shape)}; both must be of one kind."
            )
        outputs = self._outputs_of_two()
        if self.kind == "values":
            if outputs.shape[1:] != labels.shape[1:]:
                raise TikhonError(
                    f"The model gives {tuple(outputs.shape)} for two samples; values of shape {tuple(labels.shape)} "
                    f"need {(2, *labels.shape[1:])}."
                )
            return
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise TikhonError(
                f"The model gives {tuple(outputs.shape)} for two samples; integer labels need logits (2, classes)."
            )
        for name, one in (("training", labels), ("test", other_labels)):
            low, high = int(one.min()), int(one.max())
            if low < 0 or high >= outputs.shape[1]:
                raise TikhonError(
                    f"The {name} labels range from {low} to {high}, but the model has {outputs.shape[1]} classes: "
                    f"labels must lie in [0, {outputs.shape[1]})."
                )

    @property
    def kind(self) -> Kind:
        """What is predicted."""
        return kind_of(self.train[1])

    @property
    def histories(self) -> list[dict[str, list[float]]]:
        """The curves of its one training."""
        return [curves_of(self.history)]

    @cached_property
    def train_outputs(self) -> Tensor:
        """What the model gives for every training sample, on the CPU. Errors: TikhonError for NaN and infinity."""
        return self._outputs(self.train[0], "training")

    @cached_property
    def test_outputs(self) -> Tensor:
        """The same for test samples."""
        return self._outputs(self.test[0], "test")

    @property
    def device(self) -> torch.device:
        """Where the model is; inputs are brought there."""
        return device_of(self.model, self.train[0])

    def _outputs_of_two(self) -> Tensor:
        two = self.train[0][:2].to(self.device)
        try:
            with evaluating(self.model):
                outputs: Any = self.model(two)
        except Exception as error:
            raise TikhonError(
                f"The model cannot take training inputs {tuple(two.shape)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != (2,):
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise TikhonError(f"The model gives {found} for two samples; a tensor with a row for each is needed.")
        return outputs

    def _outputs(self, inputs: Tensor, name: str) -> Tensor:
        outputs = outputs_of(self.model, inputs)
        lost = int((~outputs.isfinite()).reshape(len(outputs), -1).any(1).sum())
        if lost:
            raise TikhonError(
                f"The model gives NaN or infinity for {lost} of {len(outputs)} {name} samples: its training diverged, "
                "or these inputs are not finite. Begin there; nothing else can be measured."
            )
        return outputs


def kind_of(labels: Tensor) -> Kind:
    """What labels are."""
    return "values" if labels.is_floating_point() else "classes"


def device_of(model: nn.Module, otherwise: Tensor) -> torch.device:
    """Where a model is; where it has no tensors, where `otherwise` is."""
    return next(chain(model.parameters(), model.buffers()), otherwise).device


def outputs_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """What a model gives for every sample, in eval mode, on the CPU."""
    batches = read_outputs(
        model, inputs.to(device_of(model, inputs)), [""], "tikhon doctor", lambda _, output: output.detach().cpu()
    )
    return torch.cat([output for batch in batches for _, output in batch])


def some(rows: int, most: int, purpose: str) -> Tensor:
    """Places of at most so many rows, drawn without replacement and sorted: all where there are no more."""
    return torch.randperm(rows, generator=torch_generator(0, purpose))[:most].sort().values


def refuse_odd(name: str, pair: Any) -> None:
    """TikhonError unless this is inputs and as many labels, at least two."""
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(one, Tensor) for one in pair)):
        raise TikhonError(f"{name} must be a pair of tensors, (inputs, labels); it is {type(pair).__name__}.")
    inputs, labels = pair
    if inputs.ndim < 2 or labels.ndim < 1 or len(inputs) != len(labels) or len(labels) < 2:
        raise TikhonError(
            f"{name} must be inputs (B, ...) and labels (B, ...) of at least two samples, not "
            f"{tuple(inputs.shape)} and {tuple(labels.shape)}."
        )
    if labels.is_complex() or labels.dtype == torch.bool or (not labels.is_floating_point() and labels.ndim != 1):
        raise TikhonError(
            f"The labels of {name} are {labels.dtype} of shape {tuple(labels.shape)}; class indices (B,) or floating "
            "values are needed."
        )
