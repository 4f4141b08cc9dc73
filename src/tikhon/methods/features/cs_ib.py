"""Cauchy-Schwarz information bottleneck: regression whose features keep of the input only what predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import Loss, ValueLoss
from tikhon.core.method import Method
from tikhon.core.parameters import find_module, last_linear
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32

SMALLEST = 1e-30
"""Sums of kernels are kept above this: far apart samples underflow in float32, and log 0 has no gradient."""


def gaussian_kernel(a: Tensor, b: Tensor, width: float | Tensor = 1.0) -> Tensor:
    """exp(-||a_i - b_j||^2 / (2 width^2)): a (N, D), b (M, D) -> (N, M), in (0, 1].

    >>> gaussian_kernel(torch.zeros(1, 2), torch.ones(1, 2))
    tensor([[0.3679]])
    """
    squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T
    return torch.exp(-squared.clamp_min(0.0) / (2.0 * width**2))


def median_width(x: Tensor) -> Tensor:
    """10 times the median squared distance in the sample taken twice: the official code's choice of a kernel width.

    x: (N, D), N at least 2. Returns a scalar.
    """
    twice = torch.cat([x, x])
    pairs = torch.triu_indices(len(twice), len(twice), 1)
    return 10.0 * (twice[pairs[0]] - twice[pairs[1]]).square().sum(1).quantile(0.5)


def cs_mutual_information(kernel_x: Tensor, kernel_y: Tensor, normalised: bool = False) -> Tensor:
    """I_CS(x; y), the Cauchy-Schwarz divergence between joint and product (Yu et al. 2024, arXiv 2404.17951).

        log [sum K*Q / n^2] + log [sum K sum Q / n^4] - 2 log [1^T K Q 1 / n^3]

    kernel_x, kernel_y: Gram matrices (n, n) of the same samples; normalised: divided by sqrt(I(x; x) I(y; y)). Returns
    a scalar, at least 0 up to rounding, in nats; the official code's logarithms are to base 2, a factor of log 2.

    >>> cs_mutual_information(torch.ones(3, 3), torch.eye(3)).abs()
    tensor(0.)
    """
    if normalised:
        own = cs_mutual_information(kernel_x, kernel_x) * cs_mutual_information(kernel_y, kernel_y)
        return cs_mutual_information(kernel_x, kernel_y) / own.clamp_min(SMALLEST).sqrt()
    joint, product = _log((kernel_x * kernel_y).mean()), _log(kernel_x.mean()) + _log(kernel_y.mean())
    return joint + product - 2.0 * _log((kernel_x.mean(0) * kernel_y.mean(0)).mean())


def cs_conditional_divergence(
    kernel_x: Tensor, kernel_y: Tensor, kernel_prediction: Tensor, kernel_cross: Tensor, squared_entries: bool = False
) -> Tensor:
    """D_CS(p(y|x); p(yhat|x)) of a sample, at least 0 up to rounding, 0 where the prediction is y.

        log sum_i (K*L1)_i / (K)_i^2 + log sum_i (K*L2)_i / (K)_i^2 - 2 log sum_i (K*L21)_i / (K)_i^2

    (.)_i: the sum of row i; kernel_x: K, (n, n), of the inputs; kernel_y: L1, of the targets; kernel_prediction: L2, of
    the predictions; kernel_cross: L21, predictions in rows, targets in columns; squared_entries: divide by the sum of
    squared entries of the row, as the official code does, in place of the squared sum. Returns a scalar, in nats.
    """
    rows = kernel_x.square().sum(1) if squared_entries else kernel_x.sum(1).square()

    def part(kernel: Tensor) -> Tensor:
        return _log(((kernel_x * kernel).sum(1) / rows.clamp_min(SMALLEST)).sum())

    return part(kernel_y) + part(kernel_prediction) - 2.0 * part(kernel_cross)


def _log(value: Tensor) -> Tensor:
    return value.clamp_min(SMALLEST).log()


class CSInformationBottleneck(Method):
    """Regression by a divergence between conditional densities, with features that keep little of the input.

    Use it for regression with few or noisy data, and for robustness to small changes of the input. Inputs, targets and
    features are compared by Gaussian kernels: standardise inputs and targets, or give widths. It needs batches of some
    dozens of samples, and it takes the place of the base loss while training; in eval mode `recipe.loss` is the base
    loss.

        loss = D_CS(p(y|x); p(yhat|x)) + strength I_CS(x; t)

    strength: beta, at least 0, 1e-4 to 1 in the paper; width: of the kernels, positive; feature_width: of the features'
    kernel, `width` by default; at: the module whose input is t, by default the last `nn.Linear`; squared_entries: the
    official code's denominators. Inputs of several axes are flattened.

    The divergence knows a constant shift of all predictions less well than squared error does, above all where kernels
    are narrow: widths of the spread of the targets.

    Cost: five Gram matrices of a batch.
    Reference: Yu, Yu, Lokse, Jenssen, Principe 2024, arXiv 2404.17951.

    >>> method = tikhon.CSInformationBottleneck(strength=0.01)
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="Cauchy-Schwarz Divergence Information Bottleneck for Regression",
        authors="Yu, Yu, Lokse, Jenssen, Principe",
        year=2024,
        arxiv="2404.17951",
        problems=("overfitting", "robustness"),
        formula=r"L = D_{CS}(p(y|x);p(\hat y|x)) + \beta\,I_{CS}(x;t)",
        claim="Better generalisation and robustness than other deep information bottlenecks in regression.",
        helps="Regression with few or noisy data, and perturbed inputs.",
        hurts="Small batches; data that are not standardised.",
        cost="Five Gram matrices of a batch.",
        neutral="",
    )
    needs = frozenset({"values"})
    exempt = {
        "neutral": "the loss takes the place of the recipe's",
        "accumulation": "the divergence compares the samples of a batch",
        "permutation": "the loss is a property of the batch",
    }

    def __init__(
        self,
        strength: Strength = 0.01,
        width: float = 1.0,
        feature_width: float | None = None,
        at: str | None = None,
        squared_entries: bool = False,
    ) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        for name, value in (("width", width), ("feature_width", feature_width)):
            if value is not None:
                checked(name, value, low=1e-6)
        self.width, self.feature_width = width, width if feature_width is None else feature_width
        self.at, self.squared_entries = at, squared_entries

    def check(self, model: nn.Module) -> None:
        self._place(model)

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (self._place(model),)

    def _place(self, model: nn.Module) -> str:
        if self.at is None:
            return last_linear(model, self.key)
        find_module(model, self.at, self.key)
        return self.at

    def loss_function(self, loss: Loss) -> Loss:
        return ValueLoss(_nothing)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if len(output) < 2:
            raise TikhonError(f"{self.key} compares the samples of a batch, and this one has {len(output)}.")
        x, y, prediction = (_rows(values) for values in (step.inputs, target.value, output))
        features = _rows(step.tap(self._place(step.model)).input)
        features = features.reshape(-1, len(output), features.shape[1]).mean(0)  # of several masks a sample, the mean
        kernel_x = gaussian_kernel(x, x, self.width)
        divergence = cs_conditional_divergence(
            kernel_x,
            gaussian_kernel(y, y, self.width),
            gaussian_kernel(prediction, prediction, self.width),
            gaussian_kernel(prediction, y, self.width),
            self.squared_entries,
        )
        information = cs_mutual_information(kernel_x, gaussian_kernel(features, features, self.feature_width))
        return {
            "divergence": Term(divergence, per_sample=False),
            "information": Term(information, self.strength, per_sample=False),
        }


def _rows(values: Any) -> Tensor:
    if not isinstance(values, Tensor):
        raise TikhonError(f"The information bottleneck needs inputs that are one tensor, not {type(values).__name__}.")
    return at_least_float32(values.flatten(1) if values.ndim > 1 else values[:, None])


def _nothing(output: Tensor, value: Tensor, reduction: str = "mean") -> Tensor:
    """No loss a sample: the divergence is a property of the batch. An output that is not finite still shows."""
    losses = 0.0 * output.flatten(1).sum(1) if output.ndim > 1 else 0.0 * output
    return losses if reduction == "none" else losses.mean()
