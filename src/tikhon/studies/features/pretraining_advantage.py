"""What unsupervised pretraining buys: a smaller class to fit (regularisation), or an easier fit (optimisation)?

The paper's first example, a factor model learned by maximum likelihood from unlabelled data. The comparison with
whitening, which makes the fit easier and leaves the class as it was, is ours, and so is ridge as the opponent.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.step import seed_for
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

__all__ = ["factor_model", "gradient_steps", "posterior_mean"]

card = Card(
    title="On the Provable Advantage of Unsupervised Pretraining",
    authors="Ge, Tang, Fan, Jin",
    year=2023,
    arxiv="2303.01566",
    problems=("overfitting", "speed"),
    formula=r"\text{excess risk} = O(\mathcal C_\Phi / m + \mathcal C_\Psi / n) \text{ rather than } "
    r"O(\mathcal C_{\Phi \circ \Psi} / n)",
    claim="Maximum likelihood on m unlabelled samples, then a fit to n labelled ones, beats a fit to these alone where "
    "m is far greater than n.",
    helps="Few labels, much unlabelled data, and labels that depend on what the model of the inputs finds.",
    hurts="Labels that depend on what the model of the inputs takes for noise; few unlabelled data; labels in plenty.",
    cost="One singular value decomposition of the unlabelled data, m d min(m, d).",
    neutral="",
    kind="study",
)


class FactorModel(NamedTuple):
    """x = mean + loadings z + noise, z standard normal in r dimensions, noise of one variance in all d directions."""

    mean: Tensor
    loadings: Tensor
    variance: Tensor


def factor_model(x: Tensor, rank: int) -> FactorModel:
    """The factor model with isotropic noise under which x is most likely (probabilistic PCA, in closed form).

    x: (m, d), m above rank + 1; rank: how many factors, from 1 to d - 1.

    Returns mean (d,), loadings (d, rank), which are known up to a rotation and taken along the principal axes, each
    with its largest entry positive, and the variance of the noise. Sources: Ge et al. 2023, arXiv 2303.01566; Tipping
    and Bishop 1999 for the solution. Raises `TikhonError` where there are too few samples.

    >>> import torch, tikhon
    >>> x = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # variances 4.5 and 0.5
    >>> model = tikhon.factor_model(x, 1)
    >>> model.loadings.abs().round(decimals=3), model.variance
    (tensor([[2.],
            [0.]]), tensor(0.5000))
    """
    if x.ndim != 2 or not 0 < rank < x.shape[1] or len(x) <= rank + 1:
        raise TikhonError(
            f"A factor model of rank {rank} needs samples (m, d) with m above {rank + 1} and d above {rank}, not "
            f"{tuple(x.shape)}."
        )
    mean = x.mean(0)
    _, singular, axes = torch.linalg.svd(x - mean, full_matrices=False)
    variances = singular.square() / len(x)
    noise = variances[rank:].sum() / (x.shape[1] - rank)
    loadings = axes[:rank].T * (variances[:rank] - noise).clamp_min(0.0).sqrt()
    largest = loadings.gather(0, loadings.abs().argmax(0, keepdim=True))
    return FactorModel(mean, loadings * torch.where(largest < 0, -1.0, 1.0), noise)


def posterior_mean(x: Tensor, model: FactorModel) -> Tensor:
    """E[z | x] = (W^T W + variance I)^-1 W^T (x - mean) with the loadings W: what pretraining says of each sample.

    x: (n, d). Returns (n, r).

    >>> model = FactorModel(torch.zeros(2), torch.tensor([[2.0], [0.0]]), torch.tensor(1.0))
    >>> posterior_mean(torch.tensor([[5.0, 7.0]]), model)
    tensor([[2.]])
    """
    gram = model.loadings.T @ model.loadings + model.variance * torch.eye(model.loadings.shape[1]).to(x)
    weights: Tensor = torch.linalg.solve(gram, model.loadings.T)
    return (x - model.mean) @ weights.T


def gradient_steps(features: Tensor, values: Tensor, penalty: float = 0.0, share: float = 0.01) -> Tensor:
    """How many steps of gradient descent from 0 it takes until all but `share` of the fall of the loss is done.

    features: (n, k); values: (n,); the loss is |features w - values|^2 / (2 n) + penalty |w|^2 / 2, the learning rate
    the inverse of its greatest curvature. Returns a whole number. Closed form, from the curvatures h and the gradient g
    at 0 along their directions: after t steps sum_i g_i^2 / h_i (1 - h_i / max h)^(2 t) is left.

    >>> gradient_steps(torch.eye(2), torch.ones(2)), gradient_steps(torch.diag(torch.tensor([1.0, 0.5])), torch.ones(2))
    (tensor(1.), tensor(7.))
    """
    _, singular, right = torch.linalg.svd(features, full_matrices=False)
    curvature = singular.square() / len(values) + penalty
    gradient = right @ (features.T @ values) / len(values)
    flat = curvature <= curvature.max() * torch.finfo(features.dtype).eps
    fall = torch.where(flat, 0.0, gradient.square() / curvature.masked_fill(flat, 1.0))
    rest = torch.where(flat, 0.0, 1.0 - curvature / curvature.max())
    low, high = torch.zeros_like(fall.sum()), torch.full_like(fall.sum(), 2.0**40)
    for _ in range(40):
        middle = ((low + high) / 2).floor()
        done = (fall * rest.pow(2 * middle)).sum() <= share * fall.sum()
        low, high = torch.where(done, low, middle), torch.where(done, middle, high)
    return high


FACTORS, INPUTS = 5, 100
LOADING = 0.3
"""Of an input on a factor: the five together make a third of the inputs' variance."""
LABELLED, MANY = 50, 2000
UNLABELLED, FEW = 2000, 10


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Fit ridge to the features that the arm makes of the inputs.

    Measures: error (squared error over the target's variance, on test data without noise), steps (of gradient descent
    on the arm's loss, as powers of 2), validation (less the squared error on fifty labelled samples).
    """
    generator = torch.Generator().manual_seed(seed_for("factors", seed))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    true = FactorModel(normal(INPUTS), LOADING * normal(INPUTS, FACTORS), torch.tensor(1.0, dtype=torch.float64))
    weights, others = normal(FACTORS), normal(INPUTS) / INPUTS**0.5

    def samples(count: int) -> tuple[Tensor, Tensor]:
        factors, noise = normal(count, FACTORS), normal(count, INPUTS)
        x = true.mean + factors @ true.loadings.T + noise
        return x, noise @ others if settings.get("unrelated") else factors @ weights / weights.norm()

    test, held, unlabelled, train = (samples(count) for count in (2000, 50, UNLABELLED, MANY))
    labelled = settings.get("labelled", LABELLED)
    seen = unlabelled[0][: settings.get("unlabelled", UNLABELLED)]
    features = [_features(one, settings["features"], seen, true) for one in (train[0][:labelled], held[0], test[0])]
    values = train[1][:labelled] + 0.5 * normal(MANY)[:labelled]
    middle, offset = features[0].mean(0), values.mean()
    fitted = _ridge(features[0] - middle, values - offset, settings["penalty"])
    report(1.0)
    errors = [
        (((one - middle) @ fitted + offset - value).square().mean() / value.var())
        for one, value in ((features[1], held[1] + 0.5 * normal(50)), (features[2], test[1]))
    ]
    return {
        "error": float(errors[1]),
        "steps": float(gradient_steps(features[0] - middle, values - offset, settings["penalty"]).log2()),
        "validation": -float(errors[0]),
    }


def _features(x: Tensor, kind: str, unlabelled: Tensor, true: FactorModel) -> Tensor:
    if kind == "factors":
        return posterior_mean(x, factor_model(unlabelled, FACTORS))
    if kind == "oracle":
        return posterior_mean(x, true)
    if kind == "whitened":  # all directions of the inputs, at the same scale
        factor = torch.linalg.cholesky(torch.cov(unlabelled.T))
        white: Tensor = torch.linalg.solve_triangular(factor, (x - unlabelled.mean(0)).T, upper=False)
        return white.T
    return x


def _ridge(features: Tensor, values: Tensor, penalty: float) -> Tensor:
    """The least w of |features w - values|^2 / (2 n) + penalty |w|^2 / 2; without penalty that of the least norm."""
    left, singular, right = torch.linalg.svd(features, full_matrices=False)
    known = singular > 1e-10 * singular.max()
    inverse = torch.where(known, singular / (singular.square() + penalty * len(values)), 0.0)
    weights: Tensor = right.T @ (inverse * (left.T @ values))
    return weights


def _arm(features: str, **settings: object) -> list[Settings]:
    return [{"features": features, **settings, "penalty": penalty} for penalty in (0.0, 0.01, 0.1, 1.0, 10.0)]


study = Study(
    question="With 50 labels, does a head on pretrained factors beat ridge on the inputs, and is that more than the "
    "easier fit, which whitening gives as well? Is it gone with few unlabelled data, labels that depend on what is no "
    "factor, or labels in plenty?",
    setting="factor model with 5 factors, a third of the variance of 100 inputs; 50 (or 2,000) labelled and 2,000 (or "
    "10) unlabelled samples; ridge in all arms",
    run=run,
    seeds=10,
    arms={
        "raw": _arm("raw"),
        "whitened": _arm("whitened"),
        "factors": _arm("factors"),
        "true_factors": _arm("oracle"),
        "few_unlabelled": _arm("factors", unlabelled=FEW),
        "raw_many": _arm("raw", labelled=MANY),
        "factors_many": _arm("factors", labelled=MANY),
        "raw_unrelated": _arm("raw", unrelated=True),
        "factors_unrelated": _arm("factors", unrelated=True),
    },
    expectations=[
        Expectation("factors", "raw", "error", "lower"),
        Expectation("factors", "whitened", "error", "lower"),
        Expectation("factors", "true_factors", "error", "lower", margin=-0.02),
        Expectation("factors", "raw", "steps", "lower"),
        Expectation("whitened", "raw", "steps", "lower"),
        Expectation("factors", "few_unlabelled", "error", "lower"),
        Expectation("raw_many", "factors_many", "error", "lower", margin=-0.02),
        Expectation("raw_unrelated", "factors_unrelated", "error", "lower"),
    ],
)
