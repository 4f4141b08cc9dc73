"""Nested dropout: the distribution of k, the cut, the order it gives to features, and the choice of k."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.stochastic.nested_dropout import accuracy_by_kept, keep_first, kept_distribution

INPUTS = torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 3


def network(width=10):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).double()


def attached(model, *methods, rate=0.1, **options):
    recipe = tikhon.Recipe(*methods, **options)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    recipe.attach(optimizer)
    return recipe, optimizer


def test_distribution_by_its_formula():
    weights = [math.exp(-(((k - 3.0) / 2.5) ** 2)) for k in range(1, 9)]
    expected = torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64)
    torch.testing.assert_close(kept_distribution(8, 2.5, 3.0), expected)


@pytest.mark.parametrize(("scale", "centre", "certain"), [(1e-6, 0.0, 0), (1e-6, 1e6, 7), (1e-6, -1e6, 0)])
def test_distribution_at_the_edges_does_not_underflow(scale, centre, certain):
    assert kept_distribution(8, scale, centre)[certain] == 1.0


def test_draws_follow_the_distribution_and_cut_the_whole_batch_alike():
    model = network(6)
    recipe, optimizer = attached(model, tikhon.NestedDropout(scale=3.0))
    seen = []
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    counts = torch.zeros(6, dtype=torch.float64)
    for _ in range(600):
        features = model[:2](INPUTS[:4]).detach()
        optimizer.zero_grad()
        recipe.loss(INPUTS[:4], LABELS[:4]).backward()
        optimizer.step()
        kept = int(recipe.methods["nested_dropout"].drawn)
        assert torch.equal(seen.pop(), torch.cat([features[:, :kept], torch.zeros(4, 6 - kept)], dim=1))
        counts[kept - 1] += 1
    expected = kept_distribution(6, 3.0)
    error = (expected * (1 - expected) / 600).sqrt()
    assert ((counts / 600 - expected).abs() < 4 * error).all()


def test_a_linear_autoencoder_recovers_the_principal_directions_in_order():
    """Without nested dropout a linear autoencoder finds the subspace, in any basis; with it the basis, ordered."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator)).Q
    spread = torch.tensor([3.0, 2.2, 1.5, 0.7, 0.3], dtype=torch.float64)
    data = (torch.randn(200, 5, dtype=torch.float64, generator=generator) * spread) @ rotation.T
    data = data - data.mean(0)
    principal = torch.from_numpy(PCA(3).fit(data.numpy()).components_)
    found = []
    for methods in ([], [tikhon.NestedDropout(scale=3.0)]):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(5, 3, bias=False), nn.Linear(3, 5, bias=False)).double()
        recipe = tikhon.Recipe(*methods, base=F.mse_loss)
        recipe.prepare(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        recipe.attach(optimizer)
        for _ in range(1200):
            optimizer.zero_grad()
            recipe.loss(data, data).backward()
            optimizer.step()
        directions = F.normalize(model[1].weight.detach(), dim=0)
        found.append((principal @ directions).abs().diagonal())
    assert (found[1] > 0.995).all()
    assert (found[0] < 0.95).any()


def test_evaluation_with_keep_and_export():
    model = network()
    plain = copy.deepcopy(model)
    recipe, _ = attached(model, tikhon.NestedDropout(scale=5.0, keep=4))
    recipe.loss(INPUTS, LABELS)
    expected = plain[2](keep_first(plain[:2](INPUTS), 4))
    torch.testing.assert_close(model.eval()(INPUTS), expected)
    exported = recipe.export()
    torch.testing.assert_close(exported.train()(INPUTS), expected)
    assert not exported[2].weight[:, 4:].any()
    assert torch.equal(exported[2].weight[:, :4], plain[2].weight[:, :4])


def test_accuracy_for_every_k_by_as_many_passes():
    generator = torch.Generator().manual_seed(3)
    features, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((30, 7), (4, 7), (4,)))
    labels = torch.randint(4, (30,), generator=generator)
    for offset in (bias, None):
        expected = []
        for k in range(1, 8):
            scores = F.linear(keep_first(features, k), weight, offset)
            expected.append((scores.argmax(1) == labels).float().mean())
        torch.testing.assert_close(accuracy_by_kept(features, labels, weight, offset), torch.stack(expected))


@pytest.mark.parametrize("keep", [None, 2])
def test_best_keep_sees_all_features_and_prefers_fewer(keep):
    """The label is the sign of the third feature; features beyond it do not enter."""
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.zero_()
        model[1].weight[1, 2] = 1.0
    method = tikhon.NestedDropout(keep=keep)
    recipe, _ = attached(model, method)
    labels = (INPUTS[:, 2] > 0).long()
    with pytest.raises(tikhon.TikhonError, match=r"model\.eval\(\)"):
        method.best_keep(model, INPUTS, labels)
    model.eval()
    method.keep = method.best_keep(model, INPUTS, labels)
    assert method.keep == 3
    assert len(model[1]._forward_pre_hooks) == 1
    assert torch.equal(model(INPUTS).argmax(1), labels)
    recipe.export()


def test_errors():
    with pytest.raises(tikhon.TikhonError, match="'1' is Tanh"):
        attached(network(), tikhon.NestedDropout(at="1"))
    for keep in (0, 11):
        with pytest.raises(tikhon.TikhonError, match="keep must be between 1 and 10"):
            attached(network(), tikhon.NestedDropout(keep=keep))
    with pytest.raises(tikhon.TikhonError, match="scale must be"):
        tikhon.NestedDropout(scale=0.0)
    with pytest.raises(tikhon.TikhonError, match="no module '22'"):
        attached(network(), tikhon.NestedDropout(at="22"))
