"""MMD: double loops over rows and pairs, the loss of DomainBed, equal domains, and unlabelled inputs."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.math.kernels import gaussian_mixture, squared_distances
from tikhon.methods.domains.mmd import maximum_mean_discrepancy


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def of_domains(domains, count):
    return F.one_hot(domains, count).T.double()


def ready(**arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(tikhon.MMD(**arguments))
    recipe.prepare(model, samples=20)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model


def by_loops(x, y, widths):
    def kernel(a, b):
        return sum(math.exp(-float((a - b).square().sum()) / width) for width in widths) / len(widths)

    def mean(rows, others):
        return sum(kernel(a, b) for a in rows for b in others) / (len(rows) * len(others))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def test_it_is_the_mean_over_pairs_of_double_loops() -> None:
    x, domains, widths = drawn(11, 3), torch.tensor([0, 2, 2, 0, 3, 3, 2, 2, 0, 0, 2]), [0.5, 2.0, 8.0]
    kernel = gaussian_mixture(squared_distances(x, x), torch.tensor(widths, dtype=torch.float64))
    pairs = [by_loops(x[domains == e], x[domains == f], widths) for e, f in combinations((0, 2, 3), 2)]
    found = maximum_mean_discrepancy(kernel, of_domains(domains, 4))  # there is no domain 1
    assert found.item() == pytest.approx(sum(pairs) / 3)


def test_it_is_domainbeds_up_to_the_number_of_kernels() -> None:
    gammas = torch.tensor([0.001, 0.01, 0.1, 1, 10, 100, 1000], dtype=torch.float64)
    x, y = drawn(6, 3), drawn(8, 3) + 0.5

    def summed(a, b):
        return torch.exp(-torch.cdist(a, b).square()[:, :, None] * gammas).sum(-1).mean()

    both = torch.cat([x, y])
    kernel = gaussian_mixture(squared_distances(both, both), 1.0 / gammas)
    found = maximum_mean_discrepancy(kernel, of_domains((torch.arange(14) >= 6).long(), 2))
    torch.testing.assert_close(7.0 * found, summed(x, x) + summed(y, y) - 2.0 * summed(x, y))


def test_equal_domains_and_a_single_one_have_no_discrepancy() -> None:
    x = drawn(5, 3).repeat(2, 1)
    kernel = gaussian_mixture(squared_distances(x, x), torch.ones(1, dtype=torch.float64))
    assert maximum_mean_discrepancy(kernel, of_domains(torch.arange(10) // 5, 2)).item() == pytest.approx(0, abs=1e-12)
    assert maximum_mean_discrepancy(kernel, torch.ones(1, 10).double()).item() == pytest.approx(0, abs=1e-12)
    assert maximum_mean_discrepancy(kernel, of_domains(torch.zeros(10).long(), 3)).item() == pytest.approx(0, abs=1e-12)


def test_widths_follow_the_mean_squared_distance_of_the_batch() -> None:
    x, y, domains = drawn(10, 4), torch.arange(10) % 3, torch.arange(20) % 2
    recipe, model = ready(domains=domains, scales=(0.5, 2.0))
    recipe.loss(x, y, index=torch.arange(10))
    features = model[:2](x).detach()
    mean = sum(float((a - b).square().sum()) for a, b in combinations(features, 2)) / 45
    expected = by_loops(features[0::2], features[1::2], [0.5 * mean, 2.0 * mean])
    assert recipe.log()["loss/mmd"] == pytest.approx(expected)


def test_trained_with_it_features_of_unlabelled_inputs_come_to_be_alike() -> None:
    x, y, pool = drawn(64, 4), torch.arange(64) % 3, drawn(64, 4) + 2.0
    found = []
    for strength in (0.0, 1.0):
        recipe, model = ready(unlabelled=pool, strength=strength)
        recipe.detach()
        recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01))
        for _ in range(100):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        features = model[:2](torch.cat([x, pool])).detach()
        squared = squared_distances(features, features)
        kernel = gaussian_mixture(squared, squared.mean()[None])
        found.append(float(maximum_mean_discrepancy(kernel, of_domains(torch.arange(128) // 64, 2))))
    assert found[1] < 0.2 * found[0], found


def test_rows_that_are_all_equal_have_a_finite_gradient() -> None:
    recipe, model = ready(unlabelled=torch.zeros(5, 4).double())
    recipe.loss(torch.zeros(6, 4).double(), torch.arange(6) % 3).backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="one of them"):
        tikhon.MMD()
    for scales in ((), (0.0,), ("wide",)):
        with pytest.raises(TikhonError, match="scales"):
            tikhon.MMD(unlabelled=drawn(4, 4), scales=scales)
