"""Generative kernel replay: sklearn's regression, closed forms, what is remembered without samples, wrong input."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch.distributions import MultivariateNormal, kl_divergence
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.math.kernels import fourier_features, kernel_ridge
from tikhon.math.variational import gaussian_divergence, supervised_contrast
from tikhon.solvers.continual.generative_kernel import ConditionalVAE, GenerativeKernelReplay


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).double()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_regression_is_that_of_sklearn(kernel) -> None:
    x, queries, y = drawn(12, 4), drawn(7, 4), F.one_hot(torch.arange(12) % 3).double()
    reference = KernelRidge(alpha=0.7, kernel=kernel, gamma=0.5).fit(x.numpy(), y.numpy())

    def gram(one, other):
        return one @ other.T if kernel == "linear" else torch.exp(-0.5 * torch.cdist(one, other).square())

    found = kernel_ridge(gram(x, x), gram(x, queries), y, 0.7)
    torch.testing.assert_close(found, torch.from_numpy(reference.predict(queries.numpy())))


def test_fourier_features_tend_to_the_gaussian_kernel() -> None:
    x, width = drawn(6, 3), 1.7
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, 200_000, generator=generator).double() / width
    features = fourier_features(x, directions, 2 * math.pi * torch.rand(200_000, generator=generator).double())
    expected = torch.exp(-torch.cdist(x, x).square() / (2 * width**2))
    torch.testing.assert_close(features @ features.T, expected, rtol=0.0, atol=0.01)


def test_divergence_and_contrast_are_those_of_the_definitions() -> None:
    m, s, pm, ps = drawn(2, 3), drawn(3, 2).T, drawn(2, 4)[:, :3], drawn(2, 5)[:, :3]
    for i, found in enumerate(gaussian_divergence(m, s, pm, ps)):
        one, other = (MultivariateNormal(a[i], b[i].exp().diag()) for a, b in ((m, s), (pm, ps)))
        torch.testing.assert_close(found, kl_divergence(one, other))
    features, labels = drawn(5, 4), torch.tensor([0, 1, 0, 2, 0])
    cosines = F.cosine_similarity(features[:, None], features, dim=2) / 0.3
    for i, found in enumerate(supervised_contrast(features, labels, 0.3)):
        others = [j for j in range(5) if j != i]
        same = [j for j in others if labels[j] == labels[i]]
        terms = [cosines[i, others].logsumexp(0) - cosines[i, j] for j in same]
        torch.testing.assert_close(found, sum(terms, torch.zeros(()).double()) / max(1, len(terms)))


def test_the_bound_is_of_the_evidence() -> None:
    torch.manual_seed(0)
    vae = ConditionalVAE(2, 2, latent=1, hidden=8).double()
    torch.nn.init.normal_(vae.prior)
    x, y = drawn(4, 2), torch.tensor([0, 1, 0, 1])
    generator = torch.Generator().manual_seed(0)
    bound = torch.stack([vae.losses(x, y, generator)[0] for _ in range(4000)]).mean(0) + math.log(2 * math.pi)
    z = torch.linspace(-12.0, 12.0, 4001).double()[:, None]
    with torch.no_grad():
        for i in range(4):
            mean, log_variance = vae.prior[y[i]]
            prior = torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(z[:, 0])
            likelihood = -0.5 * (x[i] - vae._decoded(z, y[i].expand(len(z)))).square().sum(1) - math.log(2 * math.pi)
            evidence = (prior + likelihood).logsumexp(0) + math.log(0.006)
            assert bound[i] > -evidence - 0.02
            assert bound[i] < -evidence + 5.0


def clusters(classes, each=60):
    centres = 3.0 * F.one_hot(torch.arange(6), 8).float()
    labels = torch.tensor(classes).repeat(each)
    return centres[labels] + 0.5 * torch.randn(
        len(labels), 8, generator=torch.Generator().manual_seed(len(classes))
    ), labels


@pytest.mark.parametrize("kernel", ["linear", "fourier"])
def test_earlier_tasks_are_remembered_without_their_samples(kernel) -> None:
    replay = GenerativeKernelReplay(8, 6, kernel, width=3.0, ridge=0.1, hidden=32, latent=4)
    for classes in ((0, 1), (2, 3)):
        replay.learn(*clusters(classes))
    x, y = clusters((0, 1, 2, 3))
    assert (replay(x).argmax(1) == y).double().mean() > 0.9
    assert (replay(x)[:, 4:] == -torch.inf).all()
    assert torch.equal(replay(x), replay(x))
    first, labels = clusters((0, 1))
    within = replay(first, torch.tensor([0, 1]))
    assert (within.argmax(1) == labels).double().mean() > 0.95
    assert (within[:, 2:] == -torch.inf).all()
    drawn_zero = replay.vae.sample(torch.zeros(100, dtype=torch.int64), torch.Generator().manual_seed(1)).mean(0)
    assert drawn_zero.argmax() == 0
    fresh = GenerativeKernelReplay(8, 6, kernel, width=3.0, ridge=0.1, hidden=32, latent=4, seed=5)
    fresh.load_state_dict(replay.state_dict())
    fresh.seed = replay.seed
    torch.testing.assert_close(fresh(x), replay(x))


def test_the_callers_generator_and_the_seed() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    outputs = []
    for _ in range(2):
        replay = GenerativeKernelReplay(8, 6, hidden=16, seed=3)
        replay.learn(*clusters((0, 1)), epochs=2)
        outputs.append(replay(clusters((0, 1))[0]))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(*outputs)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="'linear' or 'fourier'"):
        GenerativeKernelReplay(8, 6, "cosine")  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="must be positive"):
        GenerativeKernelReplay(8, 6, ridge=0.0)
    replay = GenerativeKernelReplay(8, 6)
    with pytest.raises(TikhonError, match=r"\(B, 8\) floats"):
        replay.learn(torch.zeros(4, 7), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(TikhonError, match="4 int64"):
        replay.learn(torch.zeros(4, 8), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TikhonError, match="6 classes"):
        replay.learn(torch.zeros(2, 8), torch.tensor([0, 6]))
    with pytest.raises(TikhonError, match="not learned yet"):
        replay(torch.zeros(1, 8))
