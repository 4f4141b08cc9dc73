"""Flexible DPO: preference optimisation whose push on rejected answers is weaker than its pull on chosen ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.losses import Loss, ValueLoss
from tikhon.core.method import Method
from tikhon.core.pairs import log_ratios_of_pairs, reduced
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def flex_dpo_losses(log_ratios: Tensor, beta_chosen: float = 0.1, beta_rejected: float = 0.05) -> Tensor:
    """-log sigmoid(b_w log(pi_w / ref_w) - b_l log(pi_l / ref_l)) of every pair (Yan et al. 2024, arXiv 2406.07327).

    log_ratios: (B, 2), log pi / pi_ref of the chosen and of the rejected answer. Returns (B,), at least 0. The gradient
    with respect to log pi_l is -b_l / b_w times that with respect to log pi_w.

    >>> flex_dpo_losses(torch.tensor([[1.0, -1.0]]), beta_chosen=1.0, beta_rejected=0.0)
    tensor([0.3133])
    """
    chosen, rejected = log_ratios.unbind(1)
    return -F.logsigmoid(beta_chosen * chosen - beta_rejected * rejected)


class FlexDPO(Method):
    """Learn from pairs of answers without driving the rejected ones, and with them the chosen, to nothing.

    Use it where DPO's chosen answers lose probability while training, which goes to answers nobody has seen: the
    gradient of DPO on a rejected answer's probability grows without bound as that falls. Equal betas without `sft` are
    DPO.

        loss = -log sigmoid(b_w log(pi_w / ref_w) - b_l log(pi_l / ref_l)) - sft log pi_w

    The model's output is (B, 2), the log-probabilities of the chosen and the rejected answer of every pair
    (`tikhon.math.preferences.sequence_log_probabilities`), the target (B, 2) those of the reference. The loss takes the
    place of the recipe's base loss while training; in eval mode `recipe.loss` is the base loss, so validate with
    `flex_dpo_losses`.

    beta_chosen: b_w, at least 0; beta_rejected: b_l, at least 0, below b_w; sft: weight of the chosen answers' own
    likelihood, at least 0, 0.1 to 1 where it is used.

    Cost: nothing beyond the log-probabilities.
    Reference: Yan, Miao, Li, Zhang, Xie, Deng, Yan 2024, arXiv 2406.07327. The text gives no values: the halved
    beta_rejected is our choice.

    >>> method = tikhon.FlexDPO(beta_chosen=0.1, beta_rejected=0.05)
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="3D-Properties: Identifying Challenges in DPO and Charting a Path Forward",
        authors="Yan, Miao, Li, Zhang, Xie, Deng, Yan",
        year=2024,
        arxiv="2406.07327",
        problems=("stability", "forgetting"),
        formula=r"L = -\log\sigma\big(\beta_w\log\tfrac{\pi_w}{\pi^{ref}_w}-\beta_l\log\tfrac{\pi_l}{\pi^{ref}_l}\big)"
        r"-\lambda\log\pi_w",
        claim="DPO lowers chosen answers and spreads their probability over unseen ones; separate strengths and a "
        "likelihood term mend that.",
        helps="Preference learning in which the likelihood of chosen answers falls.",
        hurts="Rejected answers that must really disappear.",
        cost="None beyond the log-probabilities of policy and reference.",
        neutral="",
    )
    slots = {"batch": "select"}
    needs = frozenset({"values"})
    exempt = {"neutral": "the loss takes the place of the recipe's"}

    def __init__(self, beta_chosen: Strength = 0.1, beta_rejected: Strength = 0.05, sft: Strength = 0.0) -> None:
        super().__init__()
        self.beta_chosen = checked("beta_chosen", beta_chosen, low=0.0)
        self.beta_rejected = checked("beta_rejected", beta_rejected, low=0.0)
        self.sft = checked("sft", sft, low=0.0)
        self._now = (0.1, 0.05, 0.0)  # the three in this step

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._now = (step.value(self.beta_chosen), step.value(self.beta_rejected), step.value(self.sft))
        return inputs, target

    def loss_function(self, loss: Loss) -> Loss:
        return ValueLoss(self._losses)

    def _losses(self, output: Tensor, reference: Tensor, reduction: str = "mean") -> Tensor:
        beta_chosen, beta_rejected, sft = self._now
        losses = flex_dpo_losses(log_ratios_of_pairs(output, reference, self.key), beta_chosen, beta_rejected)
        return reduced(losses if sft == 0.0 else losses - sft * output[:, 0], reduction)
