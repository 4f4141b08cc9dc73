"""A table of answers: the smallest policy that preferences can be learned with, its true rewards known."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report
from tikhon.studies.study import Settings

PROMPTS, ANSWERS = 20, 30
PAIRS = 160  # eight a prompt: most answers of a prompt are in no pair
STEPS = 600


class Policy(nn.Module):
    """A softmax over answers for every prompt; reads (prompt, chosen, rejected) and gives both log-probabilities."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, pairs: Tensor) -> Tensor:
        return F.log_softmax(self.logits, dim=1)[pairs[:, 0]].gather(1, pairs[:, 1:])


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Learn from Bradley-Terry preferences among answers that the reference gives.

    Measures: reward (mean true reward), entropy (mean over prompts), chosen (mean log-probability that chosen answers
    gained), unseen (mean probability of answers that are in no pair of their prompt), validation (share of held-out
    pairs of which the policy prefers the chosen answer more than the reference does).
    """
    generator = torch.Generator().manual_seed(seed_for("table", seed))
    reward = torch.randn(PROMPTS, ANSWERS, generator=generator)
    reference = Policy(torch.randn(PROMPTS, ANSWERS, generator=generator))
    train, held = (_pairs(reward, reference, count, generator) for count in (PAIRS, 1000))
    with torch.no_grad():
        known = reference(train)
    policy = Policy(reference.logits.detach())
    recipe = Recipe(*parse_arm(settings["recipe"]).methods(), base=F.mse_loss, seed=seed)
    recipe.prepare(policy)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    recipe.attach(optimizer, steps=STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        recipe.loss(train, known).backward()
        optimizer.step()
        if step % 100 == 99:
            report((step + 1) / STEPS)
    with torch.no_grad():
        p = policy.logits.softmax(1)
        unseen = torch.ones(PROMPTS, ANSWERS)
        unseen[train[:, :1], train[:, 1:]] = 0.0
        gained = policy(held) - reference(held)
        return {
            "reward": float((p * reward).sum(1).mean()),
            "entropy": float(-(p * p.clamp_min(1e-30).log()).sum(1).mean()),
            "chosen": float((policy(train) - known)[:, 0].mean()),
            "unseen": float((p * unseen).sum(1).mean()),
            "validation": float((gained[:, 0] > gained[:, 1]).double().mean()),
        }


@torch.no_grad()
def _pairs(reward: Tensor, reference: Policy, count: int, generator: torch.Generator) -> Tensor:
    """(prompt, chosen, rejected): two answers of the reference, the better chosen with probability sigmoid(gap)."""
    prompts = torch.randint(PROMPTS, (count,), generator=generator)
    answers = torch.multinomial(reference.logits.softmax(1)[prompts], 2, generator=generator)
    gap = reward[prompts[:, None], answers].diff(dim=1)[:, 0]
    second = torch.rand(count, generator=generator) < torch.sigmoid(gap)
    ordered = torch.where(second[:, None], answers.flip(1), answers)
    return torch.cat([prompts[:, None], ordered], dim=1)
