"""Base losses: what the caller's loss function is, in a form that can be weighted, mixed and softened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.core.target import Target

Kind = Literal["classes", "values", "custom"]


@runtime_checkable
class Loss(Protocol):
    """A loss that knows its samples."""

    @property
    def kind(self) -> Kind: ...

    def hard(self, output: Tensor, value: Tensor) -> Tensor:
        """Loss of every sample against one value each, (B,). Positions inside a sample are summed."""

    def soft(self, output: Tensor, probabilities: Tensor) -> Tensor:
        """Loss of every sample against probabilities (B, K), (B,)."""

    def mass(self, value: Tensor) -> Tensor | None:
        """What every sample counts in the denominator, (B,); None where each counts 1."""

    def probabilities(self, output: Tensor) -> Tensor:
        """Class probabilities (B, K)."""

    def mean(self, output: Tensor, value: Tensor) -> Tensor:
        """The caller's own reduced loss, fused where torch has a fused form."""

    def refuse(self, output: Tensor, value: Tensor) -> bool:
        """Raise a `TikhonError` if output and value do not fit each other; otherwise say whether positions are ignored.

        Values are read on the CPU only: on an accelerator that would wait for the device, and the answer is False.
        """


def weighted_losses(loss: Loss, output: Tensor, target: Target) -> tuple[Tensor, Tensor | None]:
    """The weighted loss of every row and what each row counts, both (B,); None where each counts 1.

    A mixed target means the mix of the losses, whether or not the loss is linear in it.
    """
    losses: Tensor | None = None
    masses: Tensor | None = None
    plain_mass = len(target.parts) == 1
    for part in target.parts:
        soft = part.value.is_floating_point() and loss.kind == "classes"
        value = loss.soft(output, part.value) if soft else loss.hard(output, part.value)
        own = loss.mass(part.value)
        if target.smoothing:
            uniform = torch.full_like(output, 1.0 / output.shape[1])
            spread = loss.soft(output, uniform)
            if own is not None and not soft:
                spread = spread * (own != 0)
            value = (1.0 - target.smoothing) * value + target.smoothing * spread
        share = part.mass()
        weighted = value if isinstance(share, float) and share == 1.0 else value * share
        losses = weighted if losses is None else losses + weighted
        if own is not None or isinstance(share, Tensor) or not plain_mass:
            mass = torch.ones_like(value) * share if own is None else own * share
            masses = mass if masses is None else masses + mass
    assert losses is not None
    return losses, masses


@dataclass(frozen=True, eq=False)
class ClassLoss:
    """Cross-entropy of class scores (B, K, ...) against indices (B, ...) or probabilities (B, K, ...)."""

    weight: Tensor | None = None
    ignore_index: int = -100
    log_probabilities: Callable[[Tensor], Tensor] | None = None
    """Scores -> log-probabilities over dimension 1; None is the log-softmax."""
    kind: Kind = "classes"

    def _log_p(self, output: Tensor) -> Tensor:
        return F.log_softmax(output, dim=1) if self.log_probabilities is None else self.log_probabilities(output)

    def _weight(self, like: Tensor) -> Tensor | None:
        return None if self.weight is None else self.weight.to(like)

    def hard(self, output: Tensor, value: Tensor) -> Tensor:
        log_p = self._log_p(output)  # may be wider than the output
        losses = F.nll_loss(log_p, value, self._weight(log_p), ignore_index=self.ignore_index, reduction="none")
        return losses if losses.ndim == 1 else losses.flatten(1).sum(1)

    def soft(self, output: Tensor, probabilities: Tensor) -> Tensor:
        log_p = self._log_p(output)
        pointwise = -(probabilities.to(log_p.dtype) * log_p)
        weight = self._weight(log_p)
        if weight is not None:
            pointwise = pointwise * weight.reshape(-1, *[1] * (output.ndim - 2))
        return pointwise.flatten(1).sum(1)

    def mass(self, value: Tensor) -> Tensor | None:
        if value.is_floating_point():
            return None
        kept = value != self.ignore_index
        if self.weight is not None:
            counted = self.weight.to(value.device)[value.clamp_min(0)] * kept
        else:
            counted = kept.to(torch.get_default_dtype())
        return counted if counted.ndim == 1 else counted.flatten(1).sum(1)

    def probabilities(self, output: Tensor) -> Tensor:
        return F.softmax(output, dim=1) if self.log_probabilities is None else self._log_p(output).exp()

    def mean(self, output: Tensor, value: Tensor) -> Tensor:
        if self.log_probabilities is None:
            return F.cross_entropy(output, value, self._weight(output), ignore_index=self.ignore_index)
        if value.is_floating_point():
            return self.soft(output, value).mean()
        log_p = self._log_p(output)
        return F.nll_loss(log_p, value, self._weight(log_p), ignore_index=self.ignore_index)

    def refuse(self, output: Tensor, value: Tensor) -> bool:
        if output.ndim < 2:
            raise TikhonError(
                f"A classification loss needs scores of shape (batch, classes), the model gave {tuple(output.shape)}. "
                "For another task pass base=, for example tk.Recipe(..., base=torch.nn.functional.mse_loss)."
            )
        if value.is_floating_point():
            if value.shape != output.shape:
                raise TikhonError(
                    f"Target probabilities of shape {tuple(value.shape)} do not fit scores of {tuple(output.shape)}. "
                    "Class indices must be integers: use labels.long()."
                )
            return False
        if value.dtype != torch.int64:
            raise TikhonError(f"Class labels must be int64, not {value.dtype}: use labels.long().")
        if value.shape != (output.shape[0], *output.shape[2:]):
            raise TikhonError(
                f"Labels of shape {tuple(value.shape)} do not fit scores of shape {tuple(output.shape)}; "
                f"expected {(output.shape[0], *output.shape[2:])}."
            )
        if value.device.type != "cpu" or not value.numel():
            return False
        low, high = (int(bound) for bound in torch.aminmax(value))
        ignored = low <= self.ignore_index <= high and bool((value == self.ignore_index).any())
        if ignored:
            counted = value[value != self.ignore_index]
            low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
        if low < 0 or high >= output.shape[1]:
            raise TikhonError(
                f"Labels range from {low} to {high}, but the model has {output.shape[1]} classes (0 to "
                f"{output.shape[1] - 1}). Check the labels, or the size of the model's last layer."
            )
        return ignored


@dataclass(frozen=True, eq=False)
class ValueLoss:
    """An elementwise loss such as squared error, averaged inside each sample."""

    elementwise: Callable[..., Tensor]
    kind: Kind = "values"

    def hard(self, output: Tensor, value: Tensor) -> Tensor:
        losses = self.elementwise(output, value, reduction="none")
        return losses if losses.ndim == 1 else losses.flatten(1).mean(1)

    def soft(self, output: Tensor, probabilities: Tensor) -> Tensor:
        raise TikhonError("A loss on values has no classes to spread probability over.")

    def mass(self, value: Tensor) -> Tensor | None:
        return None

    def probabilities(self, output: Tensor) -> Tensor:
        raise TikhonError("A loss on values has no class probabilities.")

    def mean(self, output: Tensor, value: Tensor) -> Tensor:
        return self.elementwise(output, value)

    def refuse(self, output: Tensor, value: Tensor) -> bool:
        if output.shape != value.shape:
            raise TikhonError(
                f"Target of shape {tuple(value.shape)} does not fit output of shape {tuple(output.shape)}; "
                "torch would broadcast them silently. Reshape one of them."
            )
        if not value.is_floating_point():
            raise TikhonError(f"A loss on values needs a floating-point target, not {value.dtype}: use target.float().")
        return False


@dataclass(frozen=True, eq=False)
class CustomLoss:
    """The caller's own function: (output, target) -> loss of every sample, (B,)."""

    function: Callable[[Any, Any], Tensor]
    kind: Kind = "custom"

    def hard(self, output: Tensor, value: Tensor) -> Tensor:
        losses = self.function(output, value)
        if not isinstance(losses, Tensor) or losses.ndim != 1:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise TikhonError(
                f"The base loss must return one loss for every sample, shape (batch,); it gave {shape}. "
                "Leave the reduction to the recipe (reduction='none')."
            )
        return losses

    def soft(self, output: Tensor, probabilities: Tensor) -> Tensor:
        raise TikhonError("A loss of your own has no classes to spread probability over.")

    def mass(self, value: Tensor) -> Tensor | None:
        return None

    def probabilities(self, output: Tensor) -> Tensor:
        raise TikhonError("A loss of your own has no class probabilities.")

    def mean(self, output: Tensor, value: Tensor) -> Tensor:
        return self.hard(output, value).mean()

    def refuse(self, output: Tensor, value: Tensor) -> bool:
        return False


_ELEMENTWISE: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.MSELoss: F.mse_loss,
    nn.L1Loss: F.l1_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
}


def as_loss(base: Any) -> tuple[Loss, float]:
    """The base loss and its label smoothing, from what the caller passed as `base`."""
    if isinstance(base, Loss):
        return base, 0.0
    if base is F.cross_entropy:
        return ClassLoss(), 0.0
    if base in _ELEMENTWISE.values():
        return ValueLoss(base), 0.0
    if isinstance(base, nn.modules.loss._Loss) and base.reduction != "mean":
        raise TikhonError(f"{base} must have reduction='mean': the recipe reduces, once, with the right denominator.")
    if isinstance(base, nn.CrossEntropyLoss):
        return ClassLoss(base.weight, base.ignore_index), base.label_smoothing
    if type(base) in (nn.MSELoss, nn.L1Loss):
        return ValueLoss(_ELEMENTWISE[type(base)]), 0.0
    if type(base) in _ELEMENTWISE:
        module = base

        def elementwise(output: Tensor, value: Tensor, reduction: str = "mean") -> Tensor:
            losses = type(module)(**_arguments(module), reduction=reduction)
            return losses.to(output.device)(output, value)  # type: ignore[no-any-return]

        return ValueLoss(elementwise), 0.0
    if callable(base):
        return CustomLoss(base), 0.0
    raise TikhonError(f"base= must be a loss function or a torch loss module, not {base!r}.")


def _arguments(module: nn.Module) -> dict[str, Any]:
    names = ("beta", "delta", "weight", "pos_weight")
    return {name: getattr(module, name) for name in names if getattr(module, name, None) is not None}
