"""CORAL: torch.cov by pairs, the loss of DomainBed, unlabelled inputs, and wrong input."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.coral import coral_distance, covariances


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(norm=False, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(tikhon.CORAL(**arguments))
    recipe.prepare(model, samples=20)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model


def of_domains(domains, count):
    return F.one_hot(domains, count).T.double()


def test_covariances_are_those_of_torch() -> None:
    x, domains = drawn(14, 3), torch.tensor([0, 2, 2, 0, 0, 3, 2, 2, 0, 0, 2, 0, 2, 2])
    found = covariances(x, of_domains(domains, 4))
    for domain in (0, 2):
        torch.testing.assert_close(found[domain], torch.cov(x[domains == domain].T))
    assert not found[[1, 3]].any()  # of no row and of one


@pytest.mark.parametrize("means", [False, True])
def test_distance_is_the_mean_over_pairs_and_four_times_it_is_domainbeds(means) -> None:
    x, domains = drawn(15, 3), torch.arange(15) % 3
    x = x * (1.0 + domains[:, None]) + domains[:, None]
    pairs = []
    for one, other in combinations([x[domains == e] for e in range(3)], 2):
        covariance = (torch.cov(one.T) - torch.cov(other.T)).square().mean()
        pairs.append(covariance + (means * (one.mean(0) - other.mean(0)).square().mean()))
    torch.testing.assert_close(4.0 * coral_distance(x, of_domains(domains, 3), means), torch.stack(pairs).mean())
    # A domain of one row has no covariance: it is left out.
    padded, extra = torch.cat([x, drawn(1, 3)]), torch.cat([domains, torch.tensor([3])])
    torch.testing.assert_close(
        coral_distance(padded, of_domains(extra, 4), means), coral_distance(x, of_domains(domains, 3), means)
    )


@pytest.mark.parametrize("norm", [False, True])
def test_unlabelled_inputs_take_a_pass_of_their_own_with_gradient(norm) -> None:
    x, y, pool = drawn(10, 4), torch.arange(10) % 3, 3.0 * drawn(1, 4).repeat(6, 1) + torch.eye(6, 4)
    recipe, model = ready(norm, unlabelled=pool, strength=2.0)
    method = recipe.methods["coral"]
    seen = []
    draw = method.compared.pool.draw
    method.compared.pool.draw = lambda *arguments: seen.append(draw(*arguments)) or seen[-1]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe.loss(x, y).backward()
    found = [one.grad.clone() for one in model.parameters()]
    assert set(map(tuple, seen[0].tolist())) <= set(map(tuple, pool.tolist()))
    assert len(seen[0]) == 10
    other = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Tanh(), nn.Linear(8, 3)).double()
    other.load_state_dict(before)
    own, drawn_features = other[:2](x), other[:2](seen[0])
    distance = (torch.cov(own.T) - torch.cov(drawn_features.T)).square().sum() / (4 * 8**2)
    loss = F.cross_entropy(other[2](own), y) + 2.0 * distance
    for one, expected in zip(found, torch.autograd.grad(loss, list(other.parameters())), strict=True):
        torch.testing.assert_close(one, expected)
    if norm:
        assert int(model[1].num_batches_tracked) == 1


def test_domains_of_the_batch_are_compared_by_sample_id() -> None:
    x, y, ids = drawn(10, 4), torch.arange(10) % 3, torch.randperm(20, generator=torch.Generator().manual_seed(0))[:10]
    domains = torch.arange(20) % 2
    recipe, model = ready(domains=domains)
    recipe.loss(x, y, index=ids)
    features = model[:2](x)
    halves = [torch.cov(features[domains[ids] == e].T) for e in (0, 1)]
    expected = (halves[0] - halves[1]).square().sum() / (4 * 8**2)
    assert recipe.log()["loss/coral"] == pytest.approx(expected.item())


def test_trained_with_it_alone_features_come_to_covary_alike() -> None:
    x, y, pool = drawn(64, 4), torch.arange(64) % 3, drawn(64, 4) * torch.tensor([3.0, 1.0, 1.0, 0.3]).double()
    found = []
    for strength in (0.0, 100.0):
        recipe, model = ready(unlabelled=pool, strength=strength)
        recipe.detach()
        recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01))
        for _ in range(100):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        features = model[:2](torch.cat([x, pool])).detach()
        found.append(float(coral_distance(features, of_domains(torch.arange(128) // 64, 2))))
    assert found[1] < 0.2 * found[0], found


def test_what_does_not_fit_is_refused() -> None:
    for arguments in ({}, {"domains": torch.zeros(4).long(), "unlabelled": drawn(4, 4)}):
        with pytest.raises(TikhonError, match="one of them"):
            tikhon.CORAL(**arguments)
    with pytest.raises(TikhonError, match="no further inputs"):
        tikhon.CORAL(unlabelled=torch.zeros(0, 4))
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    recipe = tikhon.Recipe(tikhon.CORAL(unlabelled=torch.zeros(5, 2, 4), at="0"))
    recipe.attach(torch.optim.SGD(recipe.prepare(model).parameters(), lr=0.1))
    with pytest.raises(TikhonError, match="one row a sample"):
        recipe.loss(torch.zeros(3, 2, 4), torch.tensor([0, 1, 0]))
