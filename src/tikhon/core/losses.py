"""Base losses: what the caller's loss function is, in a form that can be weighted, mixed and softened."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.core.target import Target

Kind = Literal["classes", "values", "custom", "output"]

FEW_SCORES = 2**15
"""Up to so many in a batch, a loss costs as many operations as it takes, and a dense target takes the fewest. Of more,
it costs how often they are read and written, and labels say in one number what a dense target says in all."""


@runtime_checkable
class Loss(Protocol):
    """A loss that knows its samples."""

    @property
    def kind(self) -> Kind: ...

    def scores(self, output: Tensor) -> Tensor:
        """What `hard`, `soft` and `even` read, computed once for all parts of a target: log-probabilities, say."""

    def hard(self, scores: Tensor, value: Tensor) -> Tensor:
        """Loss of every sample against one value each, (B,). Positions inside a sample are summed."""

    def soft(self, scores: Tensor, probabilities: Tensor) -> Tensor:
        """Loss of every sample against probabilities (B, K), (B,)."""

    def even(self, scores: Tensor, value: Tensor) -> Tensor:
        """Loss of every sample against equal probabilities, (B,); positions that `value` ignores do not count."""

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


def weighted_losses(
    loss: Loss, output: Tensor, target: Target, all_count: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The weighted loss of every row and what each row counts, both (B,); None where each counts 1.

    A mixed target means the mix of the losses, whether or not the loss is linear in it. all_count: it is known that no
    position is ignored.
    """
    scores = loss.scores(output)
    # Rows of several positions count these, weighted classes their weight; otherwise a row counts 1.
    all_count = all_count and getattr(loss, "weight", None) is None and output.ndim == 2
    losses: list[Tensor] = []
    masses: list[Tensor] = []
    for part in target.parts:
        soft = loss.kind == "classes" and part.value.is_floating_point()
        value = loss.soft(scores, part.value) if soft else loss.hard(scores, part.value)
        if target.smoothing:
            value = torch.lerp(value, loss.even(scores, part.value), target.smoothing)
        share = part.mass()
        losses.append(_times(value, share))
        own = None if all_count else loss.mass(part.value)
        if own is not None:
            masses.append(own * share)
        elif part.weight is not None or masses:
            masses.append(torch.ones_like(value) * share)
    # Shares add up to 1: where nothing is weighted every row counts 1, however it was mixed.
    return reduce(add, losses), reduce(add, masses) if masses else None


@dataclass(frozen=True, eq=False)
class ClassLoss:
    """Cross-entropy of class scores (B, K, ...) against indices (B, ...) or probabilities (B, K, ...)."""

    weight: Tensor | None = None
    ignore_index: int = -100
    log_probabilities: Callable[[Tensor], Tensor] | None = None
    """Scores -> log-probabilities over dimension 1; None is the log-softmax."""
    kind: Kind = "classes"
    label_smoothing: float = 0.0
    """Of the caller's own `mean`; in training the target is smoothed instead, so that smoothing and mixing commute."""
    per_class: Callable[[Tensor], Tensor] | None = None
    """Log-probabilities -> the loss of the sample, were its label this class, in the same shape; None is their
    negative, cross-entropy. A target of several classes means the expectation."""

    def scores(self, output: Tensor) -> Tensor:
        log_p = F.log_softmax(output, dim=1) if self.log_probabilities is None else self.log_probabilities(output)
        return log_p if self.per_class is None else -self.per_class(log_p)

    def _weight(self, like: Tensor) -> Tensor | None:
        return None if self.weight is None else self.weight.to(like)

    def hard(self, scores: Tensor, value: Tensor) -> Tensor:
        weight = self._weight(scores)
        return _summed(F.nll_loss(scores, value, weight, ignore_index=self.ignore_index, reduction="none"))

    def soft(self, scores: Tensor, probabilities: Tensor) -> Tensor:
        return _summed(self._expected(scores, probabilities))

    def _expected(self, scores: Tensor, probabilities: Tensor) -> Tensor:
        return -(self._weighted(scores) * probabilities.to(scores.dtype)).sum(1)

    def even(self, scores: Tensor, value: Tensor) -> Tensor:
        pointwise = self._weighted(scores).sum(1) / -scores.shape[1]  # autograd writes out the gradient of a mean
        return _summed(pointwise if value.is_floating_point() else pointwise * (value != self.ignore_index))

    def _weighted(self, scores: Tensor) -> Tensor:
        weight = self._weight(scores)
        return scores if weight is None else scores * weight.reshape(-1, *[1] * (scores.ndim - 2))

    def mass(self, value: Tensor) -> Tensor | None:
        if value.is_floating_point():
            positions = math.prod(value.shape[2:])
            return None if positions == 1 else torch.full((len(value),), float(positions), device=value.device)
        kept = value != self.ignore_index
        if self.weight is not None:
            return _summed(self.weight.to(value.device)[value.where(kept, 0)] * kept)
        return _summed(kept.to(torch.get_default_dtype()))

    def probabilities(self, output: Tensor) -> Tensor:
        return F.softmax(output, dim=1) if self.log_probabilities is None else self.log_probabilities(output).exp()

    def mean(self, output: Tensor, value: Tensor) -> Tensor:
        if self.log_probabilities is None and self.per_class is None:
            return F.cross_entropy(
                output,
                value,
                self._weight(output),
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
            )
        return self._mean(self.scores(output), value)  # scores may be wider than the output

    def mean_of(self, output: Tensor, target: Target) -> Tensor:
        """The mean loss where rows are mixed alike (`Target.alike`), and all positions and classes count alike."""
        scores = self.scores(output)
        # Unless smoothed, labels alone are read: the score of another class may be infinite.
        if target.smoothing and 0 < scores.numel() <= FEW_SCORES:
            rows = scores.numel() / scores.shape[1]
            return (scores * target.dense(scores.shape[1], scores.dtype, -1.0 / rows)).sum()
        # First, so that autograd adds its gradient to that of the labels in place.
        even = scores.sum() / -scores.numel() if target.smoothing else None
        mixed = reduce(add, (_times(self._mean(scores, part.value), part.share) for part in target.parts))
        return mixed if even is None else torch.lerp(mixed, even, target.smoothing)

    def _mean(self, scores: Tensor, value: Tensor) -> Tensor:
        if value.is_floating_point():
            return self._expected(scores, value).mean()
        return F.nll_loss(scores, value, self._weight(scores), ignore_index=self.ignore_index)

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
        if value.shape != output.shape[:1] + output.shape[2:]:
            raise TikhonError(
                f"Labels of shape {tuple(value.shape)} do not fit scores of shape {tuple(output.shape)}; "
                f"expected {(output.shape[0], *output.shape[2:])}."
            )
        if not value.is_cpu or not value.numel():
            return False
        least, greatest = torch.aminmax(value)
        low, high = int(least), int(greatest)
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


def with_per_class(loss: Loss, per_class: Callable[[Tensor], Tensor], key: str) -> ClassLoss:
    """The caller's class loss, its class weights and ignored labels kept, with another loss in place of cross-entropy.

    key: of the method that provides it, which is named where the base loss is no cross-entropy.
    """
    if not isinstance(loss, ClassLoss) or loss.per_class is not None:
        raise TikhonError(
            f"{key} takes the place of cross-entropy, and the base loss is another ({type(loss).__name__}): use "
            "base=torch.nn.functional.cross_entropy, torch.nn.CrossEntropyLoss(...) or tk.ClassLoss(...)."
        )
    return replace(loss, per_class=per_class)


def over_positions(pointwise: Tensor, loss: Loss, target: Target) -> Tensor:
    """What a term says of every position, as a value a sample: the mean over the positions that count.

    pointwise: (B,), returned as it is, or (B, ...) as the labels are. Returns (B,). With the mass of a sample, which is
    how many positions it counts, that is the mean over all positions of the batch.
    """
    if pointwise.ndim == 1:
        return pointwise
    ignored: int | None = getattr(loss, "ignore_index", None)
    if ignored is None or target.value.is_floating_point():
        return pointwise.flatten(1).mean(1)
    counted = target.value.ne(ignored).to(pointwise.dtype)
    return (pointwise * counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp_min(1.0)


def _times(value: Tensor, share: float | Tensor) -> Tensor:
    return value if isinstance(share, float) and share == 1.0 else value * share


def _summed(pointwise: Tensor) -> Tensor:
    """Positions of a sample added up: (B, ...) -> (B,)."""
    return pointwise if pointwise.ndim == 1 else pointwise.flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class ValueLoss:
    """An elementwise loss such as squared error, averaged inside each sample."""

    elementwise: Callable[..., Tensor]
    kind: Kind = "values"

    def scores(self, output: Tensor) -> Tensor:
        return output

    def hard(self, scores: Tensor, value: Tensor) -> Tensor:
        losses = self.elementwise(scores, value, reduction="none")
        return losses if losses.ndim == 1 else losses.flatten(1).mean(1)

    def soft(self, scores: Tensor, probabilities: Tensor) -> Tensor:
        raise TikhonError("A loss on values has no classes to spread probability over.")

    def even(self, scores: Tensor, value: Tensor) -> Tensor:
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

    def scores(self, output: Tensor) -> Tensor:
        return output

    def hard(self, scores: Tensor, value: Tensor) -> Tensor:
        losses = self.function(scores, value)
        if not isinstance(losses, Tensor) or losses.ndim != 1:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise TikhonError(
                f"The base loss must return one loss for every sample, shape (batch,); it gave {shape}. "
                "Leave the reduction to the recipe (reduction='none')."
            )
        return losses

    def soft(self, scores: Tensor, probabilities: Tensor) -> Tensor:
        raise TikhonError("A loss of your own has no classes to spread probability over.")

    def even(self, scores: Tensor, value: Tensor) -> Tensor:
        raise TikhonError("A loss of your own has no classes to spread probability over.")

    def mass(self, value: Tensor) -> Tensor | None:
        return None

    def probabilities(self, output: Tensor) -> Tensor:
        raise TikhonError("A loss of your own has no class probabilities.")

    def mean(self, output: Tensor, value: Tensor) -> Tensor:
        return self.hard(output, value).mean()

    def refuse(self, output: Tensor, value: Tensor) -> bool:
        return False


@dataclass(frozen=True, eq=False)
class OutputLoss:
    """A loss of the output alone, for training without labels: output -> loss of every sample, (B,).

    With it `recipe.loss(inputs)` needs no target; one that is given is not looked at.
    """

    function: Callable[[Tensor], Tensor]
    kind: Kind = "output"

    def scores(self, output: Tensor) -> Tensor:
        return output

    def hard(self, scores: Tensor, value: Tensor) -> Tensor:
        losses = self.function(scores)
        if losses.shape != scores.shape[:1]:
            raise TikhonError(
                f"A loss of the output alone must return one loss for every sample, {tuple(scores.shape[:1])}; it gave "
                f"{tuple(losses.shape)}. Leave the reduction to the recipe."
            )
        return losses

    def soft(self, scores: Tensor, probabilities: Tensor) -> Tensor:
        raise TikhonError("A loss of the output alone has no classes to spread probability over.")

    def even(self, scores: Tensor, value: Tensor) -> Tensor:
        raise TikhonError("A loss of the output alone has no classes to spread probability over.")

    def mass(self, value: Tensor) -> Tensor | None:
        return None

    def probabilities(self, output: Tensor) -> Tensor:
        raise TikhonError("A loss of the output alone has no class probabilities.")

    def mean(self, output: Tensor, value: Tensor) -> Tensor:
        return self.hard(output, value).mean()

    def refuse(self, output: Tensor, value: Tensor) -> bool:
        return False


def _zero(output: Tensor) -> Tensor:
    """0 for every sample, with a gradient of zero; an output that is not finite still shows."""
    return (0.0 * output).reshape(len(output), -1).sum(1)


no_loss = OutputLoss(_zero)
"""The base loss where the terms of methods are everything, as in self-supervised learning."""


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
        return ClassLoss(base.weight, base.ignore_index, label_smoothing=base.label_smoothing), base.label_smoothing
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
