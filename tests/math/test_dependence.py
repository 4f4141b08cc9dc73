"""Distance covariance against its definition, in both versions, and what it is zero for."""

from __future__ import annotations

import pytest
import torch

from tikhon import TikhonError
from tikhon.math.dependence import PAIRS, distance_covariance


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_definition(x, y, unbiased):
    n = len(x)
    matrices = []
    for points in (x.reshape(n, -1), y.reshape(n, -1)):
        far = torch.tensor([[float((p - q).square().sum().sqrt()) for q in points] for p in points]).double()
        rows, total = far.sum(1), far.sum()
        if unbiased:
            centred = far - (rows[:, None] + rows) / (n - 2) + total / ((n - 1) * (n - 2))
            matrices.append(centred.fill_diagonal_(0.0))
        else:
            matrices.append(far - (rows[:, None] + rows) / n + total / n**2)
    return float((matrices[0] * matrices[1]).sum()) / (n * (n - 3) if unbiased else n * n)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("shapes", [((9,), (9,)), ((9, 3), (9,)), ((9, 2), (9, 5)), ((9, 1), (9, 1))])
def test_it_is_its_definition(shapes, unbiased) -> None:
    x, y = drawn(*shapes[0]), drawn(*shapes[1], seed=1)
    found = float(distance_covariance(x, y, unbiased))
    assert found == pytest.approx(by_definition(x, y, unbiased), rel=1e-6, abs=1e-8)


def by_pairs(x, y, unbiased=False):
    """A column of zeros changes no distance, and makes vectors of the scalars, which are compared pair by pair."""
    return distance_covariance(*(torch.stack([one, torch.zeros_like(one)], 1) for one in (x, y)), unbiased)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [PAIRS + 1, 1024, 1025, 2500])
def test_many_scalars_without_their_pairs_have_the_same_value_and_gradient(n, ties) -> None:
    x = drawn(n) + 1e3
    y = (x - 1e3).square() + drawn(n, seed=1)
    if ties:
        x, y = x.round(), y.round()
    pair = [x.requires_grad_(), y.requires_grad_()]
    for unbiased in (False, True):
        found, expected = distance_covariance(*pair, unbiased), by_pairs(*pair, unbiased)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        gradients = torch.autograd.grad(found, pair), torch.autograd.grad(expected, pair)
        for mine, other in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9 * float(other.abs().max()))


def test_many_scalars_in_single_precision_lose_nothing_in_sums() -> None:
    x = drawn(5000).float()
    y = (x.square() + drawn(5000, seed=1).float()) + 100.0
    found = distance_covariance(x, y)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(distance_covariance(x.double(), y.double())), rel=1e-6)
    assert float(found) == pytest.approx(float(by_pairs(x.double(), y.double())), rel=1e-6)


def test_the_gradient_of_many_scalars_has_none_of_its_own() -> None:
    x, y = drawn(PAIRS + 1).requires_grad_(), drawn(PAIRS + 1, seed=1)
    (gradient,) = torch.autograd.grad(distance_covariance(x, y).square(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_it_sees_what_correlation_does_not_and_nothing_where_nothing_is() -> None:
    x = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    assert float(torch.corrcoef(torch.stack([x, x.square()]))[0, 1]) == pytest.approx(0.0, abs=1e-12)
    assert float(distance_covariance(x, x.square())) > 0.005
    means = torch.stack([distance_covariance(drawn(30, seed=i), drawn(30, seed=1000 + i), True) for i in range(300)])
    assert abs(float(means.mean())) < 3.0 * float(means.std()) / 300**0.5
    biased = torch.stack([distance_covariance(drawn(30, seed=i), drawn(30, seed=1000 + i)) for i in range(300)])
    assert float(biased.mean()) > 10.0 * float(means.std()) / 300**0.5


def test_points_that_are_equal_have_a_gradient() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0], [3.0, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(distance_covariance(x, torch.tensor([0.0, 1.0, 1.0, 3.0])), x)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0.0


def test_what_is_no_pair_or_too_few_is_refused() -> None:
    with pytest.raises(TikhonError, match="pairs"):
        distance_covariance(torch.zeros(3), torch.zeros(4))
    with pytest.raises(TikhonError, match="four samples"):
        distance_covariance(torch.zeros(3), torch.zeros(3), unbiased=True)
