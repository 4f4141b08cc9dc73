"""f-DPO: direct preference optimisation under any of a family of divergences from the reference."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import Loss, ValueLoss
from tikhon.core.method import Method
from tikhon.core.pairs import log_ratios_of_pairs, reduced
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]

EXTREME = 80.0
"""Log-ratios are kept within this: beyond it 1 / u leaves the range of float32, and loss and gradient would be NaN."""


def implicit_reward(log_ratio: Tensor, divergence: Divergence = "reverse_kl", alpha: float = 0.5) -> Tensor:
    """f'(u) of u = pi / pi_ref, up to a constant that a difference of two loses (Wang et al. 2023).

        reverse_kl: log u      forward_kl: -1 / u      js: log(2u / (1 + u))      alpha: (1 - u^-alpha) / alpha

    log_ratio: log u, any shape; alpha in (0, 1], whose limits are reverse_kl at 0 and forward_kl at 1. Returns the same
    shape; increasing in u. Of forward_kl and alpha, log-ratios beyond -80 count as -80, without gradient.

    >>> implicit_reward(torch.tensor([0.0, 1.0]), "js")
    tensor([0.0000, 0.3799])
    """
    if divergence == "reverse_kl":
        return log_ratio
    if divergence == "js":
        return math.log(2.0) - F.softplus(-log_ratio)
    bounded = log_ratio.clamp(-EXTREME, EXTREME)
    if divergence == "forward_kl":
        return -bounded.neg().exp()
    if divergence == "alpha":
        return -(-alpha * bounded).expm1() / alpha
    raise TikhonError(f"A divergence is one of {', '.join(get_args(Divergence))}, not {divergence!r}.")


def f_dpo_losses(
    log_ratios: Tensor, beta: float = 0.1, divergence: Divergence = "reverse_kl", alpha: float = 0.5
) -> Tensor:
    """-log sigmoid(beta f'(u_w) - beta f'(u_l)) of every pair (Wang et al. 2023, arXiv 2309.16240).

    log_ratios: (B, 2), log pi / pi_ref of the chosen and of the rejected answer; beta: positive. Returns (B,), at least
    0, and log 2 where the policy is the reference.

    >>> f_dpo_losses(torch.zeros(1, 2))
    tensor([0.6931])
    """
    chosen, rejected = implicit_reward(log_ratios, divergence, alpha).unbind(1)
    return -F.logsigmoid(beta * (chosen - rejected))


class FDPO(Method):
    """Learn from pairs of answers which is better, and stay near the reference in the divergence of your choice.

    Use it to align a language model, or any model of which answers have log-probabilities, without a reward model.
    reverse_kl is DPO: it seeks the best answers and gives up variety; forward_kl keeps variety; js and alpha lie
    between. Not without a good reference: train one on chosen answers first.

        loss = -log sigmoid(beta f'(pi_w / ref_w) - beta f'(pi_l / ref_l))

    The model's output is (B, 2), the log-probabilities of the chosen and the rejected answer of every pair
    (`tikhon.math.preferences.sequence_log_probabilities`), the target (B, 2) those of the reference. The loss takes the
    place of the recipe's base loss while training; in eval mode `recipe.loss` is the base loss, so validate with
    `f_dpo_losses`.

    beta: how dear it is to leave the reference, positive; divergence: reverse_kl, forward_kl, js or alpha; alpha: in
    (0, 1), for alpha alone: 0.3, 0.5 and 0.7 in the paper.

    Cost: nothing beyond the log-probabilities.
    Reference: Wang, Jiang, Yang, Liu, Chen 2023, arXiv 2309.16240; reverse_kl: Rafailov et al. 2023, arXiv 2305.18290.

    >>> method = tikhon.FDPO(beta=0.1, divergence="js")
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints",
        authors="Wang, Jiang, Yang, Liu, Chen",
        year=2023,
        arxiv="2309.16240",
        problems=("overfitting", "calibration"),
        formula=r"L = -\log\sigma\big(\beta f'(\pi_w/\pi^{ref}_w) - \beta f'(\pi_l/\pi^{ref}_l)\big)",
        claim="Other divergences than the reverse KL balance alignment and diversity.",
        helps="Preferences, and a wish for varied answers.",
        hurts="A poor reference; forward_kl where answers are very unlikely.",
        cost="None beyond the log-probabilities of policy and reference.",
        neutral="",
    )
    slots = {"batch": "select"}
    needs = frozenset({"values"})
    exempt = {"neutral": "the loss takes the place of the recipe's"}

    def __init__(self, beta: Strength = 0.1, divergence: Divergence = "reverse_kl", alpha: Strength = 0.5) -> None:
        super().__init__()
        if divergence not in get_args(Divergence):
            raise TikhonError(f"A divergence is one of {', '.join(get_args(Divergence))}, not {divergence!r}.")
        self.beta = checked("beta", beta, low=0.0)
        self.alpha = checked("alpha", alpha, low=1e-6, high=1.0)
        self.divergence: Divergence = divergence
        self._now = (0.1, 0.5)  # beta and alpha in this step

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._now = (step.value(self.beta), step.value(self.alpha))
        return inputs, target

    def loss_function(self, loss: Loss) -> Loss:
        return ValueLoss(self._losses)

    def _losses(self, output: Tensor, reference: Tensor, reduction: str = "mean") -> Tensor:
        beta, alpha = self._now
        ratios = log_ratios_of_pairs(output, reference, self.key)
        return reduced(f_dpo_losses(ratios, beta, self.divergence, alpha), reduction)
