"""Hessian alignment: the full Hessian, absent domains, equal domains, what it unlearns, and wrong input."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.hessian_align import _alignment_terms


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def problem(domains=3, each=5):
    x, y = drawn(domains, each, 4), torch.arange(domains * each).reshape(domains, each) % 2
    weight, bias = drawn(2, 4).requires_grad_(), drawn(2).requires_grad_()
    return x, y, weight, bias


def test_terms_are_those_of_the_full_hessian() -> None:
    x, y, weight, bias = problem()

    def loss(flat, rows):
        scores = F.linear(x[rows], flat[:8].reshape(2, 4), flat[8:]).flatten(0, -2)
        return F.cross_entropy(scores, y[rows].flatten())

    flat = torch.cat([weight.detach().flatten(), bias.detach()])
    gradients, curvatures = [], []
    for rows in (slice(None), *range(3)):
        g = torch.autograd.functional.jacobian(lambda one, rows=rows: loss(one, rows), flat)
        h = torch.autograd.functional.hessian(lambda one, rows=rows: loss(one, rows), flat)
        gradients.append(g)
        curvatures.append((h @ g, h.diagonal()))
    losses = [F.cross_entropy(F.linear(x[e], weight, bias), y[e]) for e in range(3)]
    present = torch.ones(3, dtype=torch.float64)
    curvature, gradient = _alignment_terms(losses, present, [weight, bias])
    expected = sum((one - gradients[0]).square().sum() for one in gradients[1:]) / 3
    torch.testing.assert_close(gradient.detach(), expected)
    expected = sum((one[0] - curvatures[0][0]).square().sum() for one in curvatures[1:]) / 3
    torch.testing.assert_close(curvature.detach(), expected)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 10)  # all: exact
    curvature, _ = _alignment_terms(losses, present, [weight, bias], signs.expand(4, -1, -1))
    expected = sum((one[1] - curvatures[0][1]).square().sum() for one in curvatures[1:]) / 3
    torch.testing.assert_close(curvature.detach(), expected)


def ready(domains, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    recipe = tikhon.Recipe(tikhon.HessianAlignment(domains, **arguments))
    recipe.prepare(model, samples=max(len(domains), 20))
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model


@pytest.mark.parametrize("curvature", ["hgp", "hutchinson"])
def test_a_domain_that_is_not_in_the_batch_does_not_matter(curvature) -> None:
    x, y, ids = drawn(20, 4), torch.arange(20) % 2, torch.arange(20)
    values = []
    for domains in (ids % 2, torch.where(ids % 2 == 1, 4, 0)):
        recipe, model = ready(domains, alpha=1.0, beta=1.0, curvature=curvature, probes=2000)
        recipe.loss(x, y, index=ids).backward()
        assert all(one.grad.isfinite().all() for one in model.parameters())
        values.append(recipe.log())
    gradients = [one["loss/hessian_align/gradient"] for one in values]
    assert gradients[0] == pytest.approx(gradients[1])
    assert gradients[0] > 0
    curvatures = [one["loss/hessian_align/curvature"] for one in values]
    assert curvatures[0] == pytest.approx(curvatures[1], rel=1e-9 if curvature == "hgp" else 0.5)


def test_equal_domains_cost_nothing() -> None:
    x, y = drawn(10, 4).repeat(2, 1), (torch.arange(10) % 2).repeat(2)
    recipe, _ = ready(torch.arange(20) // 10, alpha=1.0, beta=1.0)
    recipe.loss(x, y, index=torch.arange(20))
    assert recipe.log()["loss/hessian_align/gradient"] == pytest.approx(0.0, abs=1e-12)
    assert recipe.log()["loss/hessian_align/curvature"] == pytest.approx(0.0, abs=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="of integers"):
        tikhon.HessianAlignment(torch.zeros(4))
    with pytest.raises(TikhonError, match="from 0"):
        tikhon.HessianAlignment(torch.tensor([0, -1]))
    with pytest.raises(TikhonError, match="'hgp' or 'hutchinson'"):
        tikhon.HessianAlignment(torch.tensor([0, 1]), curvature="full")  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="linear classifier"):
        ready(torch.tensor([0, 1]), at="1")
    recipe, _ = ready(torch.tensor([0, 1]))
    with pytest.raises(TikhonError, match="domains of 2 samples"):
        recipe.loss(drawn(3, 4), torch.tensor([0, 1, 0]), index=torch.tensor([0, 1, 2]))
