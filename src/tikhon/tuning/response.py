"""Layers that model the best response of their weights to hyperparameters, for every sample of a batch its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.math.best_response import responding_squared_norms, responding_weight
from tikhon.tuning.perturbation import Hyperparameters

KEY = "self_tuning"


class BestResponse(nn.Module):
    """What the layers have in common: a second set of weights, added to the first by factors linear in the
    hyperparameters.

        y = (W x + b) + (A o) ⊙ (V x) + (C o) ⊙ c,   o the offset of the sample's hyperparameters

    W and b keep their names; V is `direction`, c `bias_direction`, A `scaling` and C `bias_scaling`, the last two 0 at
    first. At one setting for all samples it is one operation with the folded weights.
    """

    weight: Tensor
    bias: Any
    """A tensor or None, as in the plain layers."""
    direction: Tensor
    bias_direction: Tensor
    scaling: Tensor
    bias_scaling: Tensor
    hyperparameters: Hyperparameters

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the plain layer does."""
        raise NotImplementedError

    def by_unit(self, values: Tensor, output: Tensor) -> Tensor:
        """(B, K) -> what multiplies an output."""
        raise NotImplementedError

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias at the one setting of all samples."""
        offset = self.hyperparameters.offset
        weight = responding_weight(self.weight, self.direction, F.linear(offset, self.scaling))
        if self.bias is None:
            return weight, None
        return weight, self.bias + F.linear(offset, self.bias_scaling) * self.bias_direction

    def squared_norms(self) -> Tensor:
        """Of the weights that every sample has, (B,)."""
        scale = F.linear(self.hyperparameters.offset, self.scaling)
        return responding_squared_norms(self.weight, self.direction, scale)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.hyperparameters.offset
        if offset.ndim == 1:
            return self.operate(x, *self.folded())
        if len(x) != len(offset):
            raise TikhonError(
                f"{KEY}: a layer got {tuple(x.shape)}, but the batch has {len(offset)} samples, each with "
                "hyperparameters of its own: samples must stay the first axis. Leave that layer out with where=."
            )
        plain = self.operate(x, self.weight, self.bias)
        response = self.operate(x, self.direction, None)
        output = plain + self.by_unit(F.linear(offset, self.scaling), plain) * response
        if self.bias is not None:
            output = output + self.by_unit(F.linear(offset, self.bias_scaling) * self.bias_direction, plain)
        return output.to(plain.dtype)


class ResponseLinear(BestResponse, nn.Linear):
    """`nn.Linear` that responds."""

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def by_unit(self, values: Tensor, output: Tensor) -> Tensor:
        return values.reshape(len(values), *[1] * (output.ndim - 2), -1)


class ResponseConv1d(BestResponse, nn.Conv1d):
    """`nn.Conv1d` that responds, a factor for each channel."""

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)  # type: ignore[no-any-return]

    def by_unit(self, values: Tensor, output: Tensor) -> Tensor:
        return values[..., None]


class ResponseConv2d(BestResponse, nn.Conv2d):
    """`nn.Conv2d` that responds, a factor for each channel."""

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)  # type: ignore[no-any-return]

    def by_unit(self, values: Tensor, output: Tensor) -> Tensor:
        return values[..., None, None]


RESPONDING: dict[type[nn.Module], type[BestResponse]] = {
    nn.Linear: ResponseLinear,
    nn.Conv1d: ResponseConv1d,
    nn.Conv2d: ResponseConv2d,
}
