"""Contractive reconstruction: full Jacobians, the closed form for Gaussian data, and sampling from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.core.sensitivity import squared_jacobian
from tikhon.methods.generative.contractive import log_density_difference, metropolis, score

COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64)


def reconstructed(x, scale):
    """r(x) = x + s^2 grad log p(x) for Gaussian data."""
    return x - scale**2 * torch.linalg.solve(COVARIANCE, x.T).T


def test_all_signs_give_the_norm_of_the_full_jacobian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    found = squared_jacobian(model(x), x, signs[:, None].expand(8, 5, 3))
    for i in range(5):
        full = torch.autograd.functional.jacobian(model, x[i].detach())
        assert found[i].item() == pytest.approx(full.square().sum().item(), rel=1e-12)


def test_the_recipes_loss_is_reconstruction_plus_penalty() -> None:
    model = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.0])))
    recipe = tikhon.Recipe(tikhon.ReconstructionContractive(strength=0.5), base=F.mse_loss)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    x = torch.randn(6, 4, dtype=torch.float64)
    loss = recipe.loss(x, x)
    assert loss.item() == pytest.approx(F.mse_loss(model(x), x).item() + 0.5 * 14.0 / 4, rel=1e-12)  # signs: exact
    loss.backward()
    penalty = 2 * 0.5 * model.weight.detach() / 4
    plain = torch.autograd.grad(F.mse_loss(model(x), x), model.weight)[0]
    torch.testing.assert_close(torch.diagonal(model.weight.grad), torch.diagonal(plain + penalty))


def test_a_linear_auto_encoder_on_gaussian_data_finds_the_score() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 2, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(COVARIANCE).T
    model = nn.Linear(2, 2, bias=False).double()
    recipe = tikhon.Recipe(tikhon.ReconstructionContractive(strength=0.01, probes=8), base=F.mse_loss)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    recipe.attach(optimizer)
    for _ in range(300):
        optimizer.zero_grad()
        recipe.loss(x, x).backward()
        optimizer.step()
    # The optimum of a linear reconstruction is C (C + s^2 I)^-1, whose score is -(C + s^2 I)^-1 x.
    expected = -torch.linalg.solve(COVARIANCE + 0.01 * torch.eye(2, dtype=torch.float64), x.T).T
    found = score(model, x, 0.1).detach()
    assert F.cosine_similarity(found, expected).mean() > 0.98
    torch.testing.assert_close(found, expected, rtol=0.3, atol=0.3)


def test_densities_and_samples_are_those_of_the_gaussian() -> None:
    def model(x):
        return reconstructed(x, 0.1)

    start, end = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[0.5, 2.0]]).double()
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), COVARIANCE)
    difference = log_density_difference(model, start, end, 0.1)
    torch.testing.assert_close(difference, normal.log_prob(end) - normal.log_prob(start))
    chains, generator = torch.zeros(4000, 2).double(), torch.Generator().manual_seed(0)
    for _ in range(60):
        proposal = chains + torch.randn(4000, 2, generator=generator)
        chains = metropolis(model, chains, proposal, torch.rand(4000, generator=generator), 0.1)
    torch.testing.assert_close(torch.cov(chains.T), COVARIANCE, rtol=0.1, atol=0.1)


def test_what_it_cannot_contract_is_refused() -> None:
    with pytest.raises(TikhonError, match="probes"):
        tikhon.ReconstructionContractive(probes=0)
    with pytest.raises(TikhonError, match="values"):
        tikhon.Recipe(tikhon.ReconstructionContractive())
    model = nn.Linear(3, 2)
    recipe = tikhon.Recipe(tikhon.ReconstructionContractive(), base=F.mse_loss)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TikhonError, match=r"\(4, 2\) is none of inputs \(4, 3\)"):
        recipe.loss(torch.zeros(4, 3), torch.zeros(4, 2))
