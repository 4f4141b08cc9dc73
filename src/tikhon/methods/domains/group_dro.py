"""Group DRO: training that minds the worst group, by weights that grow where the loss is large."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.domains import Domains
from tikhon.core.losses import weighted_losses
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.precision import at_least_float32


def raised_weights(log_weights: Tensor, risks: Tensor, eta: float) -> Tensor:
    """log q after the exponentiated-gradient step q_g <- q_g exp(eta L_g) / sum (Sagawa et al. 2020, Algorithm 1).

    log_weights: log q up to a constant, (G,); risks: L_g, (G,); eta: at least 0. Returns (G,), whose exponentials add
    up to 1. Source: arXiv 1911.08731.

    >>> raised_weights(torch.zeros(2), torch.tensor([0.0, 1.0]), eta=1.0).exp()
    tensor([0.2689, 0.7311])
    """
    return (log_weights + eta * risks).log_softmax(0)


class GroupDRO(Method):
    """Train for the worst group of samples instead of for the mean.

    Use it where accuracy must not fail some groups: rare combinations of class and background, hospitals, dialects. The
    groups of the paper are called domains here as in the other methods of this family; where a cue misleads, make one
    of each combination of label and cue, `domains = label * cues + cue`. A network that fits all training data has no
    worst group left: the paper needs strong weight decay or early stopping with it. Not where groups are only noise.

        loss = sum_g q_g L_g,   q_g <- q_g exp(eta (L_g + C / sqrt(n_g))) / sum

    L_g: the mean loss of the batch's samples of group g; q: begins uniform and is raised before every step; n_g: how
    many training samples group g has. Where the batch holds none of a group, the weights of the others add up to 1.

    domains: (samples,), the group of every training sample as an integer from 0; eta: at least 0, 0.01; with 0 it is
    training in which every group counts the same; adjustment: C, at least 0, 0: more for groups that generalise worse
    because they are small. Sample weights count in L_g. Under mixing a row is of its own sample's group. Where several
    processes train, q follows the losses that the last of them saw.

    Cost: a mean of the loss for each group.
    Reference: Sagawa, Koh, Hashimoto, Liang 2020, arXiv 1911.08731.

    >>> domains = torch.tensor([0, 0, 1, 2])  # the group of every training sample
    >>> recipe = tikhon.Recipe(tikhon.GroupDRO(domains))
    """

    card = Card(
        title="Distributionally Robust Neural Networks for Group Shifts",
        authors="Sagawa, Koh, Hashimoto, Liang",
        year=2020,
        arxiv="1911.08731",
        problems=("shift", "imbalance"),
        formula=r"L = \sum_g q_g L_g,\quad q_g \propto q_g\,e^{\eta L_g}",
        claim="With strong regularisation the worst group is right far more often than after plain training.",
        helps="Groups that are known and rare, cues that mislead in some of them.",
        hurts="The mean accuracy, a little; nothing is gained once all training samples are fitted.",
        cost="A mean of the loss for each group.",
        neutral="",
    )
    slots = {"targets": "smooth"}
    needs = frozenset({"ids"})
    exempt = {
        "neutral": "with eta=0 every group counts the same, whatever its size",
        "accumulation": "the risk of a group is that of its samples in one batch",
        "permutation": "what a sample counts depends on how many of its group are in the batch",
    }

    def __init__(self, domains: Tensor, eta: Strength = 0.01, adjustment: Strength = 0.0) -> None:
        super().__init__()
        self.domains = Domains(domains, self.key)
        self.eta = checked("eta", eta, low=0.0)
        self.adjustment = checked("adjustment", adjustment, low=0.0)
        self.log_weights = PerSampleMemory(rows=1)

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        """Raise the weights; the loss of a group that is not in the batch counts as 0, as in the official code."""
        risks, present = self.domains.risks(step.loss, output.detach(), target)
        sizes = self.domains.of.bincount(minlength=self.domains.count).clamp_min(1)
        raised = at_least_float32(risks + present * step.value(self.adjustment) / sizes.to(risks.dtype).sqrt())
        only = torch.zeros(1, dtype=torch.int64, device=risks.device)
        before = self.log_weights.read(only, like=raised[None])[0]
        self.log_weights.write(only, raised_weights(before, raised, step.value(self.eta))[None])

    def targets(self, output: Tensor, target: Target, step: Step) -> Target:
        """Weigh every row by q_g over the mass of its group, times what makes the batch's mass what it was."""
        only = torch.zeros(1, dtype=torch.int64, device=output.device)
        q = self.log_weights.read(only)[0].exp()
        _, mass = weighted_losses(step.loss, output.detach(), target)
        counts = torch.ones(len(target), device=output.device) if mass is None else mass
        counts = counts.to(q.dtype)
        members = self.domains.members(target, q)
        masses = members @ counts
        kept = counts.sum() / (q * (masses > 0)).sum()
        weights = kept * q / masses.where(masses > 0, 1.0)
        return target.weighted(weights @ members)
