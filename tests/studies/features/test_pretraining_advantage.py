"""What pretraining buys: the factor model by scikit-learn and by its likelihood, steps by walking, and the study."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tikhon import TikhonError
from tikhon.studies.features.pretraining_advantage import (
    FactorModel,
    _ridge,
    factor_model,
    gradient_steps,
    posterior_mean,
    run,
)

GENERATOR = torch.Generator()


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    GENERATOR.manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def factors_and_inputs(count: int = 300) -> tuple[torch.Tensor, torch.Tensor, FactorModel]:
    true = FactorModel(normal(8), normal(8, 3), torch.tensor(0.5, dtype=torch.float64))
    factors = normal(count, 3)
    return factors, true.mean + factors @ true.loadings.T + 0.5**0.5 * normal(count, 8), true


def log_likelihood(x: torch.Tensor, model: FactorModel) -> torch.Tensor:
    covariance = model.loadings @ model.loadings.T + model.variance * torch.eye(8, dtype=torch.float64)
    return torch.distributions.MultivariateNormal(model.mean, covariance).log_prob(x).sum()


def test_it_is_probabilistic_pca() -> None:
    _, x, _ = factors_and_inputs()
    found = factor_model(x, 3)
    covariance = found.loadings @ found.loadings.T + found.variance * torch.eye(8, dtype=torch.float64)
    expected = PCA(3).fit(x.numpy()).get_covariance() * (299 / 300)  # scikit-learn divides by n - 1
    np.testing.assert_allclose(covariance, expected, rtol=1e-10)


def test_nothing_near_it_is_more_likely() -> None:
    _, x, true = factors_and_inputs()
    found = factor_model(x, 3)
    best = log_likelihood(x, found)
    assert best > log_likelihood(x, true)
    for _ in range(20):
        near = FactorModel(*(one + 0.02 * normal(*one.shape) for one in found))
        assert log_likelihood(x, near) < best


def test_the_posterior_is_bayes() -> None:
    factors, x, true = factors_and_inputs(20_000)
    covariance = true.loadings @ true.loadings.T + 0.5 * torch.eye(8, dtype=torch.float64)
    expected = (x - true.mean) @ torch.linalg.solve(covariance, true.loadings)  # the other form, of joint Gaussians
    torch.testing.assert_close(posterior_mean(x, true), expected)
    learned = posterior_mean(x, factor_model(x, 3))  # a rotation of it
    rotation = torch.linalg.lstsq(learned, expected).solution
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), rtol=0.05, atol=0.05)
    torch.testing.assert_close(learned @ rotation, expected, rtol=0.1, atol=0.1)
    assert (factors - expected).square().mean() < 0.2


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_steps_are_those_that_gradient_descent_takes(penalty: float) -> None:
    features, values = normal(6, 9), normal(6)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return (features @ w - values).square().sum() / 12 + penalty * w.square().sum() / 2

    rate = 1 / (torch.linalg.matrix_norm(features, 2).square() / 6 + penalty)
    w, least = torch.zeros(9, dtype=torch.float64), loss(_ridge(features, values, penalty))
    whole, walked = loss(w) - least, 0
    while loss(w) - least > 0.01 * whole:
        w = w - rate * torch.func.grad(loss)(w)
        walked += 1
    assert walked > 3
    assert gradient_steps(features, values, penalty).item() == walked


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(TikhonError, match=r"rank 3 needs .* m above 4 .*\(4, 8\)"):
        factor_model(torch.zeros(4, 8), 3)
    with pytest.raises(TikhonError, match="rank 8"):
        factor_model(torch.zeros(20, 8), 8)


def test_quick_form() -> None:
    def error(features: str, penalty: float, **settings: object) -> float:
        settings = {"features": features, "penalty": penalty, **settings}
        return float(np.mean([run(settings, seed, lambda share: None)["error"] for seed in (100, 101)]))

    pretrained = error("factors", 0.1)
    assert pretrained < error("raw", 1.0)
    assert pretrained < error("factors", 0.1, unlabelled=10)
    assert pretrained < error("whitened", 1.0)
    assert error("factors", 0.1, unrelated=True) > 0.9
