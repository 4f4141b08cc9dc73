"""The loss mixture: wrong labels told from right ones by how late a network believes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.measures.bootstrap import bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["loss_mixture", "LossMixture"]

ROUNDS = 500
ROUNDS_OF_A_RESAMPLE = 50  # it starts where the whole sample ended
EDGE = 1e-4


@dataclass(frozen=True)
class LossMixture:
    """Two groups of samples, of which one has labels that the network does not believe.

    posterior: (n,) float64, the probability that each label is wrong; share: (value, low, high), the estimated share of
    wrong labels; disbelief: (n,), what was fitted, 1 - the mean probability of the label; alpha, beta, weight: (2,),
    the beta distributions of right and of wrong labels and their weights.
    """

    posterior: Tensor
    share: tuple[float, float, float]
    disbelief: Tensor
    alpha: Tensor
    beta: Tensor
    weight: Tensor

    @property
    def suspects(self) -> Tensor:
        """(m,) int64: samples whose label is more likely wrong than right, the most likely first."""
        order = self.posterior.argsort(descending=True, stable=True)
        return order[self.posterior[order] > 0.5]

    def plot(self, axes: Axes | None = None) -> Axes:
        """How many samples are how much disbelieved, with the density of right and of wrong labels."""
        axes = given_or_new(axes)
        axes.hist(self.disbelief.numpy(), bins=40, range=(0, 1), density=True, color="0.8")
        top = axes.get_ylim()[1]  # that of the samples: a density may be infinite at its end
        grid = torch.linspace(0.005, 0.995, 200, dtype=torch.float64)
        density = _log_densities(grid, self.alpha, self.beta).exp() * self.weight[:, None]
        second = "wrong" if self.alpha[1] > self.beta[1] else "right, learned later"
        for row, (name, colour) in enumerate((("right", "C0"), (second, "C3"))):
            axes.plot(grid.numpy(), density[row].numpy(), color=colour, label=f"{name} {100 * self.weight[row]:.1f}%")
        axes.set(xlabel="mean disbelief in the label", ylabel="density", xlim=(0, 1), ylim=(0, top))
        axes.legend(frameon=False)
        return axes


def loss_mixture(losses: Tensor, resamples: int = 200, level: float = 0.95, seed: int = 0) -> LossMixture:
    """Estimate how many labels are wrong and which, from the losses of a training that began to fit them.

    Networks learn right labels before they memorise wrong ones; in between, the samples fall into two groups.

        d_i = 1 - mean over epochs of exp(-loss_i) ~ (1 - w) Beta(alpha_0, beta_0) + w Beta(alpha_1, beta_1)

    Use it where cross-validation for `confident_learning` is too dear. Give the epochs after right labels are learned
    and before wrong ones are, at a high learning rate and without mixing or smoothing; hard samples look half wrong,
    and the estimate tends to be too large by some of them. Its interval is for the draw of the samples and knows
    nothing of that.

    losses: cross-entropy of every sample in eval mode, (n,) or epoch by epoch (E, n), in nats, such as
    `training_dynamics(...).loss[5:20]`; resamples, level, seed: of the share's bootstrap interval. Where also the more
    disbelieved group is believed on average, no label counts as wrong. Raises `TikhonError` where neither group is
    believed: the network has not learned yet. Cost: a fit a resample.
    Reference: Arazo et al. 2019, arXiv 1904.11238, section 3.1, with EM and moments as there; they scale losses to
    [0, 1] by their extremes, while probabilities lie there by themselves, and keep their meaning without any noise.

    >>> losses = torch.cat([torch.linspace(0.05, 0.3, 80), torch.linspace(2.0, 4.0, 20)])
    >>> found = loss_mixture(losses)
    >>> round(found.share[0], 2), found.suspects.sort().values.tolist() == list(range(80, 100))
    (0.2, True)
    """
    if losses.ndim not in (1, 2) or losses.shape[-1] < 2 or not len(losses):
        raise TikhonError(f"losses must be (n,) or (E, n) with n at least 2, not {tuple(losses.shape)}.")
    rows = losses.detach().cpu().double().reshape(-1, losses.shape[-1])
    if not bool((rows >= 0).all()):
        raise TikhonError("losses must be cross-entropies, at least 0 and not NaN.")
    disbelief = 1.0 - rows.neg().exp().mean(0)
    start = torch.tensor([1.0, 2.0]).double(), torch.tensor([2.0, 1.0]).double(), torch.tensor([0.5, 0.5]).double()
    alpha, beta, weight = _fitted(disbelief, *start, ROUNDS)
    order = (alpha / (alpha + beta)).argsort()
    alpha, beta, weight = alpha[order], beta[order], weight[order]
    means = alpha / (alpha + beta)
    if not bool(means[0] < 0.5):
        raise TikhonError(
            f"The network believes hardly any label yet (mean disbelief {float(means[0]):.2f} in the better group): "
            "give the losses of later epochs."
        )
    posterior = _posterior(disbelief, alpha, beta, weight)[1] * (means[1] > 0.5)

    def share(some: Tensor) -> Tensor:
        a, b, w = _fitted(some, alpha, beta, weight, ROUNDS_OF_A_RESAMPLE)
        return torch.where(a[1] > b[1], w[1], 0.0)  # the mean of a beta distribution is above 1/2 where alpha > beta

    value, low, high = bootstrap_interval(share, disbelief, resamples=resamples, level=level, seed=seed)
    return LossMixture(posterior, (value, max(0.0, low), min(1.0, high)), disbelief, alpha, beta, weight)


def _log_densities(values: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Of values (n,) under both distributions (2, n)."""
    x = values.clamp(EDGE, 1.0 - EDGE)
    constant = torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)
    return constant[:, None] + (alpha - 1.0)[:, None] * x.log() + (beta - 1.0)[:, None] * (-x).log1p()


def _posterior(values: Tensor, alpha: Tensor, beta: Tensor, weight: Tensor) -> Tensor:
    return (_log_densities(values, alpha, beta) + weight.clamp_min(1e-12).log()[:, None]).softmax(0)


def _fitted(values: Tensor, alpha: Tensor, beta: Tensor, weight: Tensor, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
    """Expectation maximisation, each distribution by the moments of what belongs to it."""
    for _ in range(rounds):
        belongs = _posterior(values, alpha, beta, weight)
        totals = belongs.sum(1).clamp_min(1e-9)
        mean = ((belongs @ values) / totals).clamp(EDGE, 1.0 - EDGE)
        variance = (belongs * (values - mean[:, None]).square()).sum(1) / totals
        concentration = (mean * (1.0 - mean) / variance.clamp_min(1e-9) - 1.0).clamp(1e-2, 1e4)
        alpha, beta, weight = mean * concentration, (1.0 - mean) * concentration, totals / len(values)
    return alpha, beta, weight
