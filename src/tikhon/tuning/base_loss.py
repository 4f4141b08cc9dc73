"""The task's loss of a network on a batch: plain, or with what effects made of batch and targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from tikhon.core.batches import call, first_tensor
from tikhon.core.errors import Diverged, TikhonError
from tikhon.core.losses import as_loss, weighted_losses
from tikhon.core.target import Target


class BaseLoss:
    """base: what a recipe takes as one."""

    def __init__(self, base: Any) -> None:
        self.loss, self._smoothing = as_loss(base)

    def output(self, model: Callable[..., Any], inputs: Any, target: Tensor) -> Tensor:
        """What the model says of the inputs; refused where the target does not fit it."""
        output = call(model, inputs)
        if not isinstance(output, Tensor):
            raise TikhonError(f"The network must return one tensor, not {type(output).__name__}.")
        self.loss.refuse(output, target)
        return output

    def plain(self, model: Callable[..., Any], inputs: Any, target: Tensor) -> Tensor:
        """The mean loss, as the caller's own function gives it."""
        return self.loss.mean(self.output(model, inputs, target), target)

    def frozen(self, model: nn.Module, inputs: Any, target: Tensor) -> Tensor:
        """`plain`, with parameters that get no gradient, whatever else does."""
        parameters = {name: one.detach() for name, one in model.named_parameters()}

        def called(*args: Any, **named: Any) -> Any:
            return functional_call(model, parameters, args, named)

        return self.plain(called, inputs, target)

    def changed(self, output: Tensor, target: Target, penalty: Tensor | float) -> Tensor:
        """The mean loss of changed targets, and of what every sample, (B,), is charged beyond."""
        losses, mass = weighted_losses(self.loss, output, target.smooth(self._smoothing) if self._smoothing else target)
        loss = losses.mean() if mass is None else losses.sum() / mass.sum()
        return loss + penalty.mean() if isinstance(penalty, Tensor) else loss


def rows_of(inputs: Any, target: Tensor) -> int:
    """How many samples there are; refused where inputs and targets disagree."""
    rows = len(first_tensor(inputs))
    if not isinstance(target, Tensor) or len(target) != rows:
        raise TikhonError(f"{rows} inputs need as many targets, in one tensor.")
    return rows


def refuse_nonfinite(loss: Tensor, step: int) -> None:
    # A look at the value waits for an accelerator: there it is taken at the first step.
    if (loss.device.type == "cpu" or step == 0) and not math.isfinite(float(loss.detach())):
        raise Diverged(f"The loss is {float(loss.detach())} at step {step}. Check the inputs, or train more slowly.")
