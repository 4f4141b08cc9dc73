"""MaPO: align a diffusion model with preferences by the margin between errors, without a reference model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import Loss, ValueLoss
from tikhon.core.method import Method
from tikhon.core.pairs import reduced
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def likelihood_score(errors: Tensor, snr: float = 0.5) -> Tensor:
    """k m / (exp(k m) - 1) of errors m: 1 where an answer has no error, falling to 0.

    errors: at least 0, any shape; snr: k, positive. Returns the same shape, in [0, 1]. At 0 the value is the limit 1
    and the derivative the limit -k / 2; the official code gives NaN there.

    >>> likelihood_score(torch.tensor([0.0, 2.0]))
    tensor([1.0000, 0.5820])
    """
    x = snr * errors
    small = x < 1e-4  # below, the series is exact to rounding and the quotient is not
    safe = torch.where(small, torch.ones_like(x), x)
    # k m / (exp(k m) - 1) as k m exp(-k m) / (1 - exp(-k m)): no overflow for large errors.
    quotient = safe * torch.exp(-safe) / -torch.expm1(-safe)
    return torch.where(small, 1.0 - x / 2.0 + x.square() / 12.0, quotient)


def mapo_losses(errors: Tensor, beta: float = 0.1, snr: float = 0.5, timesteps: float = 1000.0) -> Tensor:
    """m_w - beta log sigmoid(T (s(m_w) - s(m_l))) of every pair (Hong et al. 2024, arXiv 2406.06424, by its code).

    errors: (B, 2), mean squared denoising errors of the chosen and of the rejected sample; snr: k of
    `likelihood_score` s; timesteps: T, of the noise schedule. Returns (B,).

    >>> mapo_losses(torch.tensor([[0.5, 0.5]]))
    tensor([0.5693])
    """
    scores = likelihood_score(errors, snr)
    return errors[:, 0] - beta * F.logsigmoid(timesteps * (scores[:, 0] - scores[:, 1]))


class MaPO(Method):
    """Fit chosen samples and widen the margin to rejected ones, with no second network in memory.

    Use it to align a diffusion or flow model with pairs of samples, above all where these are unlike what the model
    makes, so that a reference holds it back. Not where the chosen samples are few or poor: they are fitted.

        loss = m_w - beta log sigmoid(T (s(m_w) - s(m_l))),   s(m) = k m / (exp(k m) - 1)

    The model's output is (B, 2, ...), its prediction of noise or velocity for the chosen and the rejected sample at the
    same noise and time, and the target is what it should predict. The loss takes the place of the recipe's base loss
    while training; in eval mode `recipe.loss` is the base loss, so validate with `mapo_losses`.

    beta: weight of the margin, at least 0; 0 fits the chosen samples alone; snr: k, positive; timesteps: T, at least 1.

    Cost: the passes for both samples; no reference.
    Reference: Hong, Paul, Lee, Rasul, Thorne, Jeong 2024, arXiv 2406.06424. s is the form of the official code.

    >>> method = tikhon.MaPO(beta=0.1)
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="Margin-aware Preference Optimization for Aligning Diffusion Models without Reference",
        authors="Hong, Paul, Lee, Rasul, Thorne, Jeong",
        year=2024,
        arxiv="2406.06424",
        problems=("shift", "speed"),
        formula=r"L = m_w - \beta\log\sigma\big(T(s(m_w)-s(m_l))\big),\quad s(m)=\frac{km}{e^{km}-1}",
        claim="Improves alignment where the reference does not match the preferred samples, without a second network.",
        helps="Preferred samples unlike those of the pretrained model.",
        hurts="Few or poor chosen samples.",
        cost="The passes for chosen and rejected samples.",
        neutral="",
    )
    slots = {"batch": "select"}
    needs = frozenset({"values"})
    exempt = {"neutral": "the loss takes the place of the recipe's"}

    def __init__(self, beta: Strength = 0.1, snr: Strength = 0.5, timesteps: int = 1000) -> None:
        super().__init__()
        if isinstance(timesteps, bool) or not isinstance(timesteps, int) or timesteps < 1:
            raise TikhonError(f"timesteps must be a positive integer, not {timesteps!r}.")
        self.beta = checked("beta", beta, low=0.0)
        self.snr = checked("snr", snr, low=1e-6)
        self.timesteps = timesteps
        self._now = (0.1, 0.5)  # beta and snr in this step

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._now = (step.value(self.beta), step.value(self.snr))
        return inputs, target

    def loss_function(self, loss: Loss) -> Loss:
        return ValueLoss(self._losses)

    def _losses(self, output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        if output.ndim < 3 or output.shape[1] != 2:
            raise TikhonError(
                f"{self.key} compares pairs: output and target must be (B, 2, ...), of the chosen and the rejected "
                f"sample; the output is {tuple(output.shape)}."
            )
        beta, snr = self._now
        errors = (output - target).square().flatten(2).mean(2)
        return reduced(mapo_losses(errors, beta, snr, self.timesteps), reduction)
