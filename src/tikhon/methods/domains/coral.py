"""Deep CORAL: features with the same covariance in every domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.domains import ComparedFeatures
from tikhon.core.method import Method
from tikhon.core.pool import Dataset
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.domains import dispersion, domain_means
from tikhon.math.precision import at_least_float32


def covariances(features: Tensor, members: Tensor) -> Tensor:
    """The covariance of the features of each domain, over n - 1: (E, D, D), 0 for a domain of less than two rows.

    features: (N, D); members: (E, N), 1.0 where a row is of the domain.

    >>> covariances(torch.tensor([[1.0], [3.0]]), torch.ones(1, 2))
    tensor([[[2.]]])
    """
    centred = features - members.T @ domain_means(features, members)
    sums = torch.einsum("en,ni,nj->eij", members, centred, centred)
    return sums / (members.sum(1) - 1.0).clamp_min(1.0)[:, None, None]


def coral_distance(features: Tensor, members: Tensor, means: bool = False) -> Tensor:
    """||C_e - C_f||^2 / (4 D^2), the mean over pairs of domains (Sun and Saenko 2016, arXiv 1607.01719, eq. 1).

    features: (N, D); members: (E, N), 1.0 where a row is of the domain; means: add ||m_e - m_f||^2 / (4 D) of the
    domains' means. Domains of less than two rows are left out. Returns a scalar, at least 0.

    >>> rows = torch.tensor([[1.0], [3.0], [0.0], [0.0]])
    >>> coral_distance(rows, torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]))
    tensor(1.)
    """
    present = (members.sum(1) > 1).to(features.dtype)
    size = features.shape[1]
    distance = dispersion(covariances(features, members).flatten(1), present) / (4.0 * size**2)
    if means:
        distance = distance + dispersion(domain_means(features, members), present) / (4.0 * size)
    return distance


class CORAL(Method):
    """Make the features of all domains covary alike.

    Use it where test data come from another domain than the labelled ones: with inputs of that domain, which need no
    labels, or with several labelled domains for one that is unknown. Not where classes are of other shares in the other
    domain, which alignment then mixes up, nor with batches much smaller than the features are many.

        loss = task + strength mean_{e < f} ||C_e - C_f||^2 / (4 D^2)

    C: the covariance, over a batch, of what goes into the module `at`.

    domains: (samples,), the domain of every training sample as an integer from 0; or unlabelled: inputs of the other
    domain, a tensor or a map-style data set, of which a batch is drawn in every step; strength: at least 0, 1; the
    paper chooses it so that both losses end about equal; at: by default the last `nn.Linear`, the classifier; means:
    compare the means as well: four times this is the loss of DomainBed. Batch norm sees the unlabelled inputs by
    themselves, and its running statistics are those of the labelled ones. Under mixing a row is of its own sample's
    domain.

    Cost: covariances of the features, and with unlabelled inputs a pass on as many of these as the batch has rows.
    Reference: Sun, Saenko 2016, arXiv 1607.01719.

    >>> target_inputs = torch.randn(100, 8)
    >>> recipe = tikhon.Recipe(tikhon.CORAL(unlabelled=target_inputs))
    """

    card = Card(
        title="Deep CORAL: Correlation Alignment for Deep Domain Adaptation",
        authors="Sun, Saenko",
        year=2016,
        arxiv="1607.01719",
        problems=("shift",),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{4D^2}\lVert C_S - C_T\rVert_F^2",
        claim="Aligning second moments of deep features raises accuracy on a domain without labels.",
        helps="Inputs of the test domain without labels, or several labelled domains.",
        hurts="Domains with other shares of classes; small batches.",
        cost="Covariances of the features, and a pass on the unlabelled inputs.",
    )
    exempt = {
        "accumulation": "covariances are those of one batch",
        "permutation": "the distance is a property of the batch",
    }

    def __init__(
        self,
        domains: Tensor | None = None,
        unlabelled: Tensor | Dataset | None = None,
        strength: Strength = 1.0,
        at: str | None = None,
        means: bool = False,
    ) -> None:
        super().__init__()
        self.compared = ComparedFeatures(domains, unlabelled, at, self.key)
        self.needs = self.compared.needs
        self.strength = checked("strength", strength, low=0.0)
        self.means = means

    def check(self, model: nn.Module) -> None:
        self.compared.check(model)

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (self.compared.place(model),)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        features, members = self.compared.read(output, target, step)
        distance = coral_distance(at_least_float32(features), at_least_float32(members), self.means)
        return {"coral": Term(distance, self.strength, per_sample=False)}
