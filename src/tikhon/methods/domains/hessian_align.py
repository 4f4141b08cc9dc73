"""Hessian alignment: a classifier whose gradient and curvature are the same in every training domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.domains import Domains
from tikhon.core.errors import TikhonError
from tikhon.core.features import check_place, place_of, rows_before
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.domains import mismatch


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """d loss / d parameters as one row (P,), with a graph."""
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, parameters, create_graph=True)])


def _curvature(gradient: Tensor, parameters: Sequence[Tensor], probes: Tensor | None) -> Tensor:
    """H g (P,) without probes, which is half the gradient of ||g||^2; with probes (K, P) the mean of z * H z."""
    if probes is None:
        return _gradient(0.5 * gradient.square().sum(), parameters)
    products = torch.autograd.grad(gradient, parameters, probes, create_graph=True, is_grads_batched=True)
    return (probes * torch.cat([one.flatten(1) for one in products], dim=1)).mean(0)


def _alignment_terms(
    domain_losses: Sequence[Tensor],
    present: Tensor,
    parameters: Sequence[Tensor],
    probes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """How far curvature and gradient of a classifier differ between domains: two scalars, with a graph.

    domain_losses: the mean loss of each of E domains, computed from `parameters`, the classifier's weight and bias;
    present: (E,), 1.0 or 0.0; probes: (1 + E, K, P), of +1 and -1, for Hutchinson's estimate of the diagonal of the
    Hessian, for the mean loss and for each domain; None for the product of Hessian and gradient.
    """
    mean_loss = (torch.stack(list(domain_losses)) * present).sum() / present.sum().clamp_min(1.0)
    gradients = [_gradient(loss, parameters) for loss in (mean_loss, *domain_losses)]
    curvatures = [
        _curvature(gradient, parameters, None if probes is None else probes[number])
        for number, gradient in enumerate(gradients)
    ]
    return (
        mismatch(torch.stack(curvatures[1:]), curvatures[0].detach(), present),
        mismatch(torch.stack(gradients[1:]), gradients[0].detach(), present),
    )


class HessianAlignment(Method):
    """Make the classifier's gradient and Hessian agree between training domains.

    Use it where training data come from several domains (hospitals, cameras, years) and test data from another one:
    what holds in some domains only pulls the classifier differently in each, and is unlearned. Not with one domain, nor
    where the domains differ in nothing that misleads.

        loss = task + alpha mean_e ||h_e - sg(h)||^2 + beta mean_e ||g_e - sg(g)||^2

    g_e: gradient of the loss in domain e with respect to the classifier alone; h_e: Hessian times gradient ("hgp"), or
    the diagonal of the Hessian ("hutchinson"); g and h: of the mean over domains, through which no gradient flows.

    domains: (samples,), the domain of every training sample as an integer from 0; alpha: at least 0, 1e-3; beta: at
    least 0, 5e-3: both are to be searched; curvature: "hgp" or "hutchinson"; probes: of Hutchinson's estimate, 300 in
    the paper; at: the classifier, an `nn.Linear`, the last one by default. A batch should hold samples of every domain,
    equally many at best. Under mixing a row is of its own sample's domain.

    Cost: two gradients of the classifier's loss a domain, and the backward pass through them; not of the network.
    Reference: Hemati, Zhang, Estiri, Chen 2023, arXiv 2308.11778. As in the official code, h is that of the mean loss.

    >>> domains = torch.tensor([0, 0, 1, 1])  # of every training sample
    >>> recipe = tikhon.Recipe(tikhon.HessianAlignment(domains))
    """

    card = Card(
        title="Understanding Hessian Alignment for Domain Generalization",
        authors="Hemati, Zhang, Estiri, Chen",
        year=2023,
        arxiv="2308.11778",
        problems=("shift",),
        formula=r"L = \mathrm{task} + \tfrac1E\sum_e \alpha\lVert H_e g_e - Hg\rVert^2 + \beta\lVert g_e - g\rVert^2",
        claim="Aligning the Hessians of the classifier's head between domains promises better results on unseen ones.",
        helps="Several training domains, a test domain of its own, and cues that hold in some domains only.",
        hurts="One domain; too large strengths, which keep the classifier from learning.",
        cost="Two gradients of the classifier's loss a domain, and the backward pass through them.",
        neutral="alpha=0, beta=0",
    )
    needs = frozenset({"ids", "classes"})
    exempt = {
        "accumulation": "the gradient of a domain is that of its samples in one batch",
        "permutation": "the terms are properties of the batch",
        "shards": "the head is applied outside of the model's own pass, where its weights are parts",
    }

    def __init__(
        self,
        domains: Tensor,
        alpha: Strength = 1e-3,
        beta: Strength = 5e-3,
        curvature: Literal["hgp", "hutchinson"] = "hgp",
        probes: int = 300,
        at: str | None = None,
    ) -> None:
        super().__init__()
        self.domains = Domains(domains, self.key)
        if curvature not in ("hgp", "hutchinson"):
            raise TikhonError(f"curvature is 'hgp' or 'hutchinson', not {curvature!r}.")
        if isinstance(probes, bool) or not isinstance(probes, int) or probes < 1:
            raise TikhonError(f"probes must be a positive integer, not {probes!r}.")
        self.alpha = checked("alpha", alpha, low=0.0)
        self.beta = checked("beta", beta, low=0.0)
        self.curvature, self.probes, self.at = curvature, probes, at

    def check(self, model: torch.nn.Module) -> None:
        check_place(model, self.at, self.key, linear=True)

    def taps(self, model: torch.nn.Module) -> Sequence[str]:
        return (place_of(model, self.at, self.key),)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.alpha) == 0.0 and step.value(self.beta) == 0.0:
            return {}
        place = place_of(step.model, self.at, self.key)
        head = step.model.get_submodule(place)
        parameters: list[Tensor] = [one for one in (head.weight, head.bias) if isinstance(one, Tensor)]
        features = rows_before(step.tap(place).input, len(output), self.key)
        risks, present = self.domains.risks(step.loss, F.linear(features, *parameters), target)
        probes = None
        if self.curvature == "hutchinson":
            shape = (1 + self.domains.count, self.probes, sum(one.numel() for one in parameters))
            signs = torch.randint(2, shape, generator=step.generator(risks.device), device=risks.device)
            probes = 2.0 * signs.to(risks.dtype) - 1.0
        curvature, gradient = _alignment_terms(risks.unbind(), present, parameters, probes)
        return {
            "curvature": Term(curvature, self.alpha, per_sample=False),
            "gradient": Term(gradient, self.beta, per_sample=False),
        }
