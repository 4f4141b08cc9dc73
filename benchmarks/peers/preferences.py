"""Losses of preference learning beside trl's, backward included.

trl computes its losses inside a trainer's step, together with the model's passes and its logs: what is timed is the
arithmetic of that step, from the lines of `DPOTrainer._compute_loss`, on given log-probabilities. Those of the answers
come from a function of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from trl.trainer.utils import selective_log_softmax

from benchmarks.harness import Pair, case
from tikhon.math.preferences import sequence_log_probabilities
from tikhon.methods.preference.f_dpo import Divergence, f_dpo_losses

BETA = 0.1
NOTE = "The peer's formulas, taken out of its trainer."


def reverse_kl(log_ratio: Tensor) -> Tensor:
    return log_ratio


def forward_kl(log_ratio: Tensor) -> Tensor:
    return 1 - torch.exp(-log_ratio)


def js(log_ratio: Tensor) -> Tensor:
    return math.log(2) + F.logsigmoid(log_ratio)


SCORES: dict[Divergence, Callable[[Tensor], Tensor]] = {"reverse_kl": reverse_kl, "forward_kl": forward_kl, "js": js}

for divergence, score in SCORES.items():

    @case(f"DPO with {divergence}, 64 pairs", peer="trl", note=NOTE)
    def dpo(divergence: Divergence = divergence, score: Callable[[Tensor], Tensor] = score) -> Pair:
        policy = (3.0 * torch.randn(64, 2)).requires_grad_()
        reference = policy.detach() + torch.randn(64, 2)

        def ours() -> Tensor:
            return f_dpo_losses(policy - reference, BETA, divergence).mean()

        def theirs() -> Tensor:
            (chosen, rejected), (chosen_reference, rejected_reference) = policy.unbind(1), reference.unbind(1)
            delta = score(chosen - chosen_reference) - score(rejected - rejected_reference)
            return (-F.logsigmoid(BETA * delta)).mean()

        return Pair(
            lambda: torch.autograd.grad(ours(), policy)[0],
            lambda: torch.autograd.grad(theirs(), policy)[0],
        )


@case("log-probabilities of answers, 4 x 128 tokens of 8000", peer="trl")
def answers() -> Pair:
    logits, tokens = torch.randn(4, 128, 8000, requires_grad=True), torch.randint(8000, (4, 128))
    counted = torch.arange(128).expand(4, -1) >= 64  # after the prompt

    def theirs() -> Tensor:
        return (selective_log_softmax(logits, tokens) * counted).sum(1)

    return Pair(
        lambda: torch.autograd.grad(sequence_log_probabilities(logits, tokens, counted).sum(), logits)[0],
        lambda: torch.autograd.grad(theirs().sum(), logits)[0],
    )
