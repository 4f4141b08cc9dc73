"""Invariant risk minimisation: features on which one and the same classifier is best in every training domain."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.domains import Domains
from tikhon.core.losses import Loss, weighted_losses
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.domains import domain_means, mean_over


def invariance_penalty(slopes: Tensor, members: Tensor, mass: Tensor | None = None, unbiased: bool = False) -> Tensor:
    """The mean over domains of (d R_e(w f) / dw)^2 at w = 1, called IRMv1 (Arjovsky et al. 2019, arXiv 1907.02893).

    slopes: (B,), d loss / dw of every row, times what it counts; members: (E, B), 1.0 where a row is of the domain;
    mass: (B,), what each row counts, 1 by default; unbiased: in place of the square the product of the means of every
    other row of the domain, which in expectation is the square of the expectation, and may be negative. Returns a
    scalar.

    >>> invariance_penalty(torch.tensor([1.0, 3.0, -2.0]), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    tensor(4.)
    """
    present = (members.sum(1) > 0).to(slopes.dtype)
    if not unbiased:
        return mean_over(domain_means(slopes, members, mass).square(), present)
    odd = members * (members.cumsum(1) % 2)
    one, other = (domain_means(slopes, half, mass) for half in (odd, members - odd))
    return mean_over(one * other, present)


def _slopes(loss: Loss, output: Tensor, target: Target) -> tuple[Tensor, Tensor | None]:
    """d loss / dw of w * output at w = 1, of every row, with a graph, and what each row counts."""
    scale = torch.ones(len(output), *[1] * (output.ndim - 1), dtype=output.dtype, device=output.device)
    losses, mass = weighted_losses(loss, output * scale.requires_grad_(), target)
    (slopes,) = torch.autograd.grad(losses.sum(), scale, create_graph=True)
    return slopes.flatten(), None if mass is None else mass.to(slopes.dtype)


class IRM(Method):
    """Learn features for which the same classifier is optimal in every training domain.

    Use it where training data come from several domains (hospitals, cameras, years) in which a misleading cue holds to
    different degrees, and test data from a domain where it may not hold. Not with one domain, with domains that do not
    differ in the cue, nor with a network that fits its training data entirely: then every slope is zero.

        loss = task + strength mean_e (d R_e(w f) / dw)^2 at w = 1

    R_e: the mean loss of the batch's samples of domain e; f: the output, w: a number that multiplies it.

    domains: (samples,), the domain of every training sample as an integer from 0; strength: at least 0, 100; the paper
    begins with 1 and later has up to 1e5, as in `tikhon.stepwise({0.0: 1.0, 0.4: 1e4})`. It is to be searched, and with
    SGD the learning rate lowered for it; the official code divides the whole loss by it where it is above 1, which Adam
    does not notice. unbiased: the paper's estimate from two halves of each domain's samples. A batch should hold many
    samples of every domain. Under mixing a row is of its own sample's domain.

    Cost: the loss and its derivative by one number a sample, and the backward pass through both; not of the network.
    Reference: Arjovsky, Bottou, Gulrajani, Lopez-Paz 2019, arXiv 1907.02893. Any base loss will do.

    >>> domains = torch.tensor([0, 0, 1, 1])  # of every training sample
    >>> recipe = tikhon.Recipe(tikhon.IRM(domains, strength=tikhon.stepwise({0.0: 1.0, 0.4: 1e4})))
    """

    card = Card(
        title="Invariant Risk Minimization",
        authors="Arjovsky, Bottou, Gulrajani, Lopez-Paz",
        year=2019,
        arxiv="1907.02893",
        problems=("shift",),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{E}\sum_e\bigl(\nabla_{w|w=1}R_e(w f)\bigr)^2",
        claim="Features for which one classifier is best in all training domains hold in unseen ones.",
        helps="Several training domains and cues that hold in each to a different degree.",
        hurts="One domain; networks that fit their training data entirely; hard to tune.",
        cost="A derivative of the loss by one number a sample, and the backward pass through it.",
    )
    needs = frozenset({"ids"})
    exempt = {
        "accumulation": "the risk of a domain is that of its samples in one batch",
        "permutation": "the penalty is a property of the batch",
    }

    def __init__(self, domains: Tensor, strength: Strength = 100.0, unbiased: bool = False) -> None:
        super().__init__()
        self.domains = Domains(domains, self.key)
        self.strength = checked("strength", strength, low=0.0)
        self.unbiased = unbiased

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        slopes, mass = _slopes(step.loss, output, target)
        members = self.domains.members(target, slopes)
        penalty = invariance_penalty(slopes, members, mass, self.unbiased)
        return {"irm": Term(penalty, self.strength, per_sample=False)}
