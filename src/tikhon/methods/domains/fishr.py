"""Fishr: a classifier whose gradients vary alike from sample to sample in every training domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.domains import Domains
from tikhon.core.features import check_place, place_of, rows_before
from tikhon.core.losses import weighted_losses
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.domains import mean_over, mismatch
from tikhon.math.precision import at_least_float32


def gradient_variances(errors: Tensor, features: Tensor, members: Tensor, bias: bool = True) -> Tensor:
    """The variance over each domain's samples of every entry of a linear layer's gradient.

    The gradient of a sample is the outer product of its error and its features. Means of it and of its square are then
    products of matrices, and no gradient of a sample is ever formed. errors: d loss / d scores, (B, K); features:
    (B, D); members: (E, B), 1.0 where a row is of the domain; bias: whether the layer has one. Returns (E, K * D), with
    a bias (E, K * (D + 1)), its entry after the weights of the same score; at least 0 up to rounding, over n, 0 for a
    domain without samples. Source: Rame, Dancette, Cord 2022, arXiv 2109.02934.

    >>> gradient_variances(torch.ones(2, 1), torch.tensor([[1.0], [3.0]]), torch.ones(1, 2))
    tensor([[1., 0.]])
    """
    inputs = F.pad(features, (0, 1), value=1.0) if bias else features
    sizes = members.sum(1).clamp_min(1.0)[:, None, None]

    def mean(left: Tensor, right: Tensor) -> Tensor:
        return torch.einsum("eb,bk,bd->ekd", members, left, right) / sizes

    return (mean(errors.square(), inputs.square()) - mean(errors, inputs).square()).flatten(1)


class Fishr(Method):
    """Make the classifier's gradients vary alike from sample to sample in all training domains.

    Use it where training data come from several domains (hospitals, cameras, years) and test data from another one: the
    variance of gradients follows the curvature of the loss, and domains with equal curvature agree on what to learn.
    Not with one domain, nor from the first step: let the network begin to learn without it, as in
    `tikhon.stepwise({0.0: 0.0, 0.3: 1000.0})`.

        loss = task + strength mean_e ||v_e - v||^2,   v = mean_e v_e

    v_e: the variance, over the samples of domain e, of every entry of the gradient of the classifier alone. It is
    averaged over steps, v_e <- decay v_e + (1 - decay) (that of the batch), and then divided by 1 - decay as in the
    official code: the gradient of the penalty, which flows through the batch's variances, keeps its size so.

    domains: (samples,), the domain of every training sample as an integer from 0; strength: at least 0, 1000, to be
    searched between 10 and 1e4; decay: in [0, 1), 0.95; at: the classifier, an `nn.Linear`, the last one by default. A
    batch should hold many samples of every domain. Under mixing a row is of its own sample's domain. Where several
    processes train, the averages are those that the last of them saw.

    Cost: two products of the classifier's size a domain, twice, and the backward pass through one of them; one vector
    of the classifier's size a domain is kept.
    Reference: Rame, Dancette, Cord 2022, arXiv 2109.02934.

    >>> domains = torch.tensor([0, 0, 1, 1])  # of every training sample
    >>> recipe = tikhon.Recipe(tikhon.Fishr(domains))
    """

    card = Card(
        title="Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization",
        authors="Rame, Dancette, Cord",
        year=2022,
        arxiv="2109.02934",
        problems=("shift",),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{E}\sum_e\lVert v_e - v\rVert^2,"
        r"\quad v_e = \mathrm{Var}_{i\in e}\,\nabla_w\ell_i",
        claim="Gradients that vary alike make the loss landscapes of domains alike, which holds in unseen ones.",
        helps="Several training domains, a test domain of its own, and cues that hold in some domains only.",
        hurts="One domain; a network that has not begun to learn.",
        cost="Products of the classifier's size for each domain, and a vector of that size kept for each.",
    )
    needs = frozenset({"ids", "classes"})
    exempt = {
        "accumulation": "the variance of a domain is that of its samples in one batch",
        "permutation": "the penalty is a property of the batch",
        "shards": "the head is applied outside of the model's own pass, where its weights are parts",
    }

    def __init__(
        self, domains: Tensor, strength: Strength = 1000.0, decay: Strength = 0.95, at: str | None = None
    ) -> None:
        super().__init__()
        self.domains = Domains(domains, self.key)
        self.strength = checked("strength", strength, low=0.0)
        self.decay = checked("decay", decay, low=0.0, high=0.9999)
        self.at = at
        self.variances = PerSampleMemory(rows=self.domains.count)

    def check(self, model: nn.Module) -> None:
        check_place(model, self.at, self.key, linear=True)

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (place_of(model, self.at, self.key),)

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        found, present = self._of_batch(output, target, step)
        ids = torch.arange(self.domains.count, device=found.device)
        before, decay = self.variances.read(ids, like=found), step.value(self.decay)
        moved = decay * before + (1.0 - decay) * found.detach()
        self.variances.write(ids, torch.where(present[:, None] > 0, moved, before))

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        found, present = self._of_batch(output, target, step)
        ids = torch.arange(self.domains.count, device=found.device)
        averaged = self.variances.read(ids) / (1.0 - step.value(self.decay))
        variances = averaged + (found - found.detach())  # the value is the average's, the gradient the batch's
        penalty = mismatch(variances, mean_over(variances, present), present)
        return {"fishr": Term(penalty, self.strength, per_sample=False)}

    def _of_batch(self, output: Tensor, target: Target, step: Step) -> tuple[Tensor, Tensor]:
        """The variances in the batch, (E, P), with a graph, and which domains it holds, (E,)."""
        place = place_of(step.model, self.at, self.key)
        head = step.model.get_submodule(place)
        assert isinstance(head, nn.Linear)
        features = rows_before(step.tap(place).input, len(output), self.key)
        scores = F.linear(features, head.weight, head.bias)
        losses, _ = weighted_losses(step.loss, scores, target)
        (errors,) = torch.autograd.grad(losses.sum(), scores, create_graph=True)
        members = self.domains.members(target, at_least_float32(errors))
        errors, features = at_least_float32(errors), at_least_float32(features)
        variances = gradient_variances(errors, features, members, head.bias is not None)
        return variances, (members.sum(1) > 0).to(members.dtype)
