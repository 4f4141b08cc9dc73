"""Spectral norm: singular values, torch's own parametrization step by step, and what one pass must not move."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import tikhon
from tikhon.methods.weights.spectral_norm import power_iteration, spectrally_normalised

DOUBLE = torch.float64


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(50, 3))
    return nn.Sequential(*layers).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 6, 6, dtype=DOUBLE, generator=generator), torch.randint(3, (8,), generator=generator)


def ready(model: nn.Module, **arguments: object):
    recipe = tikhon.Recipe(tikhon.SpectralNorm(**arguments))
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9))
    return recipe, optimizer


def largest(weight: Tensor, dim: int = 0) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().movedim(dim, 0).flatten(1), 2))


def test_many_iterations_find_the_leading_singular_vectors() -> None:
    matrix = torch.randn(5, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    u, v = power_iteration(matrix, F.normalize(torch.ones(5, dtype=DOUBLE), dim=0), 300)
    left, sigma, right = torch.linalg.svd(matrix)
    sign = torch.sign(u[0] * left[0, 0])
    torch.testing.assert_close(u, sign * left[:, 0])
    torch.testing.assert_close(v, sign * right[0])
    torch.testing.assert_close(spectrally_normalised(matrix, u, v), matrix / sigma[0])


def test_zeros_stay_zeros() -> None:
    zeros = torch.zeros(3, 2)
    u, v = power_iteration(zeros, torch.tensor([1.0, 0.0, 0.0]))
    assert not spectrally_normalised(zeros, u, v).any()


def test_training_is_that_of_torch_with_one_pass_a_step() -> None:
    ours, theirs = network(), network()
    recipe, optimizer = ready(ours)
    for i in (0, 2, 4):
        torch.nn.utils.spectral_norm(theirs[i])  # the order of the paper; torch's parametrization has v after u
        own = ours[i].parametrizations.weight[0]
        theirs[i].weight_u.copy_(own.u)
        theirs[i].weight_v.copy_(own.v)
    plain = torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9)
    for number in range(6):
        x, y = batch(number)
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
        plain.zero_grad()
        if number == 0:  # torch moves its vectors in every pass of a training module, ours once a step
            theirs.eval()
        F.cross_entropy(theirs(x), y).backward()
        theirs.train()
        plain.step()
    x, _ = batch(9)
    ours.eval()
    theirs(x)  # catches up with the last step
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-8, atol=1e-10)


def test_every_layer_has_norm_one_and_export_keeps_it() -> None:
    model = network()
    recipe, optimizer = ready(model, iterations=30)
    for number in range(5):
        optimizer.zero_grad()
        recipe.loss(*batch(number)).backward()
        optimizer.step()
    exported = recipe.export()
    for i, dim in ((0, 0), (2, 1), (4, 0)):
        assert largest(exported[i].weight, dim) == pytest.approx(1.0, abs=1e-3)
        assert isinstance(exported[i].weight, nn.Parameter)


def test_passes_do_not_move_the_vectors() -> None:
    model = network()
    recipe, _ = ready(model)
    before = copy.deepcopy(model.state_dict())
    for number in range(3):
        recipe.loss(*batch(number))
        model(batch(number)[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_chain_of_layers_is_lipschitz() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    with torch.no_grad():
        for one in model.parameters():
            one.mul_(3.0)
    ready(model, iterations=50)
    x = torch.randn(200, 4, dtype=DOUBLE)
    slopes = (model(x[:100]) - model(x[100:])).norm(dim=1) / (x[:100] - x[100:]).norm(dim=1)
    assert slopes.max() <= 1.01


def test_wrong_input() -> None:
    with pytest.raises(tikhon.TikhonError, match="iterations"):
        tikhon.SpectralNorm(iterations=0)
    model = nn.Linear(3, 2)
    with pytest.raises(tikhon.TikhonError, match="bias of shape"):
        tikhon.Recipe(tikhon.SpectralNorm(where="all")).prepare(model)
    nn.init.zeros_(model.weight)
    with pytest.raises(tikhon.TikhonError, match="all zeros"):
        tikhon.Recipe(tikhon.SpectralNorm()).prepare(model)
    with pytest.raises(tikhon.TikhonError, match="parametrised already"):
        tikhon.Recipe(tikhon.SpectralNorm()).prepare(parametrizations.spectral_norm(nn.Linear(3, 2)))
