"""InfoMEC: whether latents stand for one source each, say all of the sources, and how many a source needs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32

__all__ = ["infomec", "InfoMEC", "mutual_information", "modularity", "compactness"]

card = Card(
    title="Disentanglement via Latent Quantization",
    authors="Hsu, Dorrell, Whittington, Wu, Finn",
    year=2023,
    arxiv="2305.18378",
    problems=("overfitting",),
    formula=r"M=\frac{\overline{\max_i N_{ij}/\sum_i N_{ij}}-1/n_s}{1-1/n_s},\quad "
    r"C=\frac{\overline{\max_j N_{ij}/\sum_j N_{ij}}-1/n_z}{1-1/n_z},\quad E=1-\overline{H_V(s_i|z)/H_V(s_i)}",
    claim="One view, from information theory, of modularity, explicitness and compactness, blind to idle latents.",
    helps="Judging latents against known, discrete sources.",
    hurts="Sources that depend on each other; few samples for the number of values.",
    cost="For each source and latent a table of counts or a nearest-neighbour estimate; a linear probe a source.",
    neutral="",
    kind="measure",
)

NEIGHBOURS = 10
"""Of the estimate of mutual information with a continuous latent."""


@dataclass(frozen=True)
class InfoMEC:
    """modularity: 1 where each latent tells of one source only; explicitness: 1 where a linear probe reads all sources;
    compactness: 1 where each source is in one latent only; nan where there are too few latents to say.

    information: (sources, latents), mutual information divided by the source's entropy; active: (latents,), bool.
    """

    modularity: float
    explicitness: float
    compactness: float
    information: Tensor
    active: Tensor


def mutual_information(a: Tensor, b: Tensor, levels_a: int, levels_b: int) -> Tensor:
    """Plug-in mutual information of every pair of columns, in nats.

    a: (N, S), b: (N, D), int64 in [0, levels_a) and [0, levels_b). Returns (S, D) in float64, at least 0 up to
    rounding. Of a column with itself it is its entropy.

    >>> mutual_information(torch.tensor([[0], [0], [1], [1]]), torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), 2, 2)
    tensor([[0.6931, 0.0000]], dtype=torch.float64)
    """
    one, other = F.one_hot(a, levels_a).double(), F.one_hot(b, levels_b).double()  # (N, S, A), (N, D, B)
    joint = torch.einsum("nsa,ndb->sdab", one, other) / len(a)
    expected = one.mean(0)[:, None, :, None] * other.mean(0)[None, :, None, :]
    pointwise: Tensor = torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, expected)
    return pointwise.sum((2, 3))


def modularity(information: Tensor) -> Tensor:
    """How far each latent tells of one source only, averaged over latents: 0 for equal shares, 1 for one source.

    information: (S, D), at least 0, S at least 2. Returns a scalar in [0, 1]; nan without a latent. A latent that tells
    nothing counts as one that tells the same of all sources.

    >>> modularity(torch.tensor([[1.0, 0.5], [0.0, 0.5]]))
    tensor(0.5000)
    """
    information = at_least_float32(information)
    count, total = len(information), information.sum(0)
    shares = torch.where(total > 0, information.amax(0) / torch.where(total > 0, total, 1.0), 1.0 / count)
    return (shares.mean() - 1.0 / count) / (1.0 - 1.0 / count)


def compactness(information: Tensor) -> Tensor:
    """How far each source is in one latent only, averaged over sources; as `modularity`, axes swapped: D at least 2."""
    return modularity(information.T)


def infomec(sources: Tensor, latents: Tensor, discrete: bool, seed: int = 0) -> InfoMEC:
    """Modularity, explicitness and compactness of latents against known sources.

    sources: (N, S), integers, S at least 2, each with at least two values; latents: (N, D), integers where they are
    codes; discrete: whether they are: then mutual information is counted and an active latent is one that varies, else
    mutual information is estimated from 10 nearest neighbours of the standardised latent and an active latent has more
    than a twentieth of the greatest range; seed: of the noise that this estimate adds against ties. Only active latents
    count for modularity and compactness; nan where none is, or for compactness where one alone is.

    Explicitness is by how much a linear probe (an unregularised logistic regression with balanced classes, 100 steps,
    judged on the data that it was fitted to) does better than one without input, whose loss is log of the number of
    values. Latents are one-hot for it where discrete, else standardised. Official numbers come out to rounding; with
    continuous latents to the noise of the estimate, about 1e-2. Raises `TikhonError` where shapes do not fit.
    Source: Hsu, Dorrell, Whittington, Wu, Finn 2023, arXiv 2305.18378.

    >>> import torch, tikhon
    >>> sources = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    >>> found = tikhon.infomec(sources, sources.flip(1), discrete=True)
    >>> round(found.modularity, 3), round(found.explicitness, 3)
    (1.0, 1.0)
    """
    _refuse(sources, latents)
    s, z = sources.detach().cpu(), latents.detach().cpu()
    codes, levels = _coded(s)
    if min(levels) < 2:
        raise TikhonError(f"Source {levels.index(min(levels))} has one value only: there is nothing to know of it.")
    entropy = mutual_information(codes, codes, max(levels), max(levels)).diagonal()
    if discrete:
        of_latents, counts = _coded(z)
        information = mutual_information(codes, of_latents, max(levels), max(counts)).clamp_min(0.0)
        probed = OneHotEncoder().fit_transform(of_latents.numpy())
    else:
        probed = StandardScaler().fit_transform(z.double().numpy())
        rows = [
            mutual_info_classif(probed, one, discrete_features=False, n_neighbors=NEIGHBOURS, random_state=seed)
            for one in codes.T.numpy()
        ]
        information = torch.from_numpy(np.stack(rows))
    information = information / entropy[:, None]
    span = (z.amax(0) - z.amin(0)).double()
    active = span > (0.0 if discrete else span.max() / 20.0)
    kept = information[:, active]
    losses = [_probe_loss(probed, one) / math.log(count) for one, count in zip(codes.T.numpy(), levels, strict=True)]
    return InfoMEC(
        modularity=float(modularity(kept)),
        explicitness=1.0 - float(np.mean(losses)),
        compactness=float(compactness(kept)) if kept.shape[1] > 1 else math.nan,
        information=information,
        active=active,
    )


def _coded(columns: Tensor) -> tuple[Tensor, list[int]]:
    """Every column as 0, 1, ... in the order of its values, and how many values it has."""
    coded = [column.unique(return_inverse=True) for column in columns.T]
    return torch.stack([places for _, places in coded], dim=1), [len(values) for values, _ in coded]


def _probe_loss(inputs: object, labels: object) -> float:
    """Mean cross-entropy of a linear probe on its own training data, in nats."""
    probe = LogisticRegression(C=math.inf, class_weight="balanced", max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 steps are part of the definition
        probe.fit(inputs, labels)
    return float(log_loss(labels, probe.predict_proba(inputs)))


def _refuse(sources: Tensor, latents: Tensor) -> None:
    if sources.ndim != 2 or latents.ndim != 2 or len(sources) != len(latents) or not latents.numel():
        raise TikhonError(
            f"infomec needs sources (N, S) and latents (N, D), not {tuple(sources.shape)} and {tuple(latents.shape)}."
        )
    if sources.shape[1] < 2:
        raise TikhonError("infomec compares what a latent tells of several sources: give two of them at least.")
    if sources.is_floating_point():
        raise TikhonError(f"Sources must be integers, not {sources.dtype}: number their values.")
    if not bool(torch.isfinite(latents).all()):
        raise TikhonError("Some latents are NaN or infinite.")
