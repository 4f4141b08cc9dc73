"""Maximum mean discrepancy: features that no kernel tells apart by domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.domains import ComparedFeatures
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.pool import Dataset
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.kernels import gaussian_mixture, squared_distances
from tikhon.math.precision import at_least_float32


def maximum_mean_discrepancy(kernel: Tensor, members: Tensor) -> Tensor:
    """MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), the mean over pairs of domains.

    kernel: (N, N), positive semi-definite, of all rows; members: (E, N), 1.0 where a row is of the domain. Domains
    without rows are left out. Pairs of a row with itself count, as in the biased estimate. Returns a scalar, at least 0
    up to rounding; 0 for a single domain. Source: Gretton, Borgwardt, Rasch, Schoelkopf, Smola 2012, eq. 5.

    >>> maximum_mean_discrepancy(torch.eye(2), torch.eye(2))
    tensor(2.)
    """
    sizes = members.sum(1, keepdim=True)
    shares = members / sizes.clamp_min(1.0)
    products = shares @ kernel @ shares.T  # of the domains' mean embeddings; of a domain without rows 0
    count = (sizes > 0).sum().to(kernel.dtype)
    over_pairs = count * products.diagonal().sum() - products.sum()
    return 2.0 * over_pairs / (count * (count - 1.0)).clamp_min(1.0)


class MMD(Method):
    """Make the features of all domains the same in distribution, as a mixture of Gaussian kernels sees it.

    Use it where test data come from another domain than the labelled ones: with inputs of that domain, which need no
    labels, or with several labelled domains for one that is unknown. Not where classes are of other shares in the other
    domain, which alignment then mixes up, nor with batches of less than some dozens of samples.

        loss = task + strength mean_{e < f} MMD^2(z_e, z_f),   k(x, y) = mean_m exp(-||x - y||^2 / (s_m d))

    z: what goes into the module `at`; d: the mean squared distance between two rows of the batch, through which no
    gradient flows; s: the scales.

    domains: (samples,), the domain of every training sample as an integer from 0; or unlabelled: inputs of the other
    domain, a tensor or a map-style data set, of which a batch is drawn in every step; strength: at least 0, 1; scales:
    positive, 1/4 to 4 by factors of two, as in the code of deep adaptation networks; at: by default the last
    `nn.Linear`, the classifier. Batch norm sees the unlabelled inputs by themselves, and its running statistics are
    those of the labelled ones. Under mixing a row is of its own sample's domain.

    Cost: a kernel matrix of the batch, and with unlabelled inputs a pass on as many of these as the batch has rows.
    Reference: Long, Cao, Wang, Jordan 2015, arXiv 1502.02791; between several domains Li, Pan, Wang, Kot 2018.

    >>> target_inputs = torch.randn(100, 8)
    >>> recipe = tikhon.Recipe(tikhon.MMD(unlabelled=target_inputs))
    """

    card = Card(
        title="Learning Transferable Features with Deep Adaptation Networks",
        authors="Long, Cao, Wang, Jordan",
        year=2015,
        arxiv="1502.02791",
        problems=("shift",),
        formula=r"L = \mathrm{task} + \lambda\,\mathrm{MMD}_k^2(z_S, z_T)",
        claim="Matching the mean embeddings of deep features raises accuracy on a domain without labels.",
        helps="Inputs of the test domain without labels, or several labelled domains.",
        hurts="Domains with other shares of classes; small batches.",
        cost="A kernel matrix of the batch, and a pass on the unlabelled inputs.",
    )
    exempt = {
        "accumulation": "the discrepancy is that of one batch",
        "permutation": "the discrepancy is a property of the batch",
    }

    def __init__(
        self,
        domains: Tensor | None = None,
        unlabelled: Tensor | Dataset | None = None,
        strength: Strength = 1.0,
        scales: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
        at: str | None = None,
    ) -> None:
        super().__init__()
        self.compared = ComparedFeatures(domains, unlabelled, at, self.key)
        self.needs = self.compared.needs
        self.strength = checked("strength", strength, low=0.0)
        self.scales = tuple(scales)
        if not self.scales or not all(isinstance(one, (int, float)) and one > 0 for one in self.scales):
            raise TikhonError(f"scales must be positive numbers, at least one, not {scales!r}.")

    def check(self, model: nn.Module) -> None:
        self.compared.check(model)

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (self.compared.place(model),)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        features, members = map(at_least_float32, self.compared.read(output, target, step))
        squared = squared_distances(features, features)
        mean = squared.detach().sum() / max(1, len(squared) * (len(squared) - 1))
        mean = mean.clamp_min(torch.finfo(mean.dtype).tiny)
        widths = torch.stack([scale * mean for scale in self.scales])
        distance = maximum_mean_discrepancy(gaussian_mixture(squared, widths), members)
        return {"mmd": Term(distance, self.strength, per_sample=False)}
