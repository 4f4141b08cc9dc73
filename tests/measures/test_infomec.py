"""InfoMEC: scikit-learn's mutual information, codes whose three numbers are known, and what makes each of them fall."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import mutual_info_score

from tikhon import TikhonError
from tikhon.measures.infomec import compactness, infomec, modularity, mutual_information

GRID = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(2))


def drawn(rows: int, high: int, columns: int, seed: int = 0):
    return torch.randint(high, (rows, columns), generator=torch.Generator().manual_seed(seed))


def test_mutual_information_is_that_of_scikit_learn() -> None:
    a, b = drawn(50, 3, 2), drawn(50, 5, 4, seed=1)
    expected = [[mutual_info_score(x, y) for y in b.T.numpy()] for x in a.T.numpy()]
    torch.testing.assert_close(mutual_information(a, b, 3, 5), torch.tensor(expected, dtype=torch.float64))


def test_a_permuted_one_to_one_code_is_perfect() -> None:
    latents = torch.stack([1 - GRID[:, 2], 2 - GRID[:, 0], (GRID[:, 1] * 3) % 4 - 7], dim=1)
    found = infomec(GRID, latents, discrete=True)
    assert found.modularity == pytest.approx(1.0)
    assert found.compactness == pytest.approx(1.0)
    assert found.explicitness == pytest.approx(1.0, abs=2e-3)
    torch.testing.assert_close(found.information, torch.eye(3).double()[:, [2, 0, 1]], atol=1e-9, rtol=0.0)


def test_a_latent_of_two_sources_costs_modularity() -> None:
    both = 4 * GRID[:, 0] + GRID[:, 1]
    found = infomec(GRID, torch.stack([both, GRID[:, 2]], dim=1), discrete=True)
    # shares of the first latent are equal (each source is known from it), of the second 1: (1/2 + 1) / 2 - 1/3, scaled
    assert found.modularity == pytest.approx((0.75 - 1 / 3) / (2 / 3))
    assert found.compactness == pytest.approx(1.0)
    assert found.explicitness == pytest.approx(1.0, abs=2e-3)


def test_a_source_in_two_latents_costs_compactness() -> None:
    found = infomec(GRID, torch.cat([GRID, GRID[:, :1]], dim=1), discrete=True)
    assert found.modularity == pytest.approx(1.0)
    assert found.compactness == pytest.approx(((0.5 + 1 + 1) / 3 - 0.25) / 0.75)


def test_a_source_left_out_costs_explicitness() -> None:
    found = infomec(GRID, GRID[:, :2], discrete=True)
    assert found.explicitness == pytest.approx(2 / 3, abs=2e-3)
    # a linear probe does not read a product of signs, a code of its own value does
    signs = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    sources = torch.cat([signs, (signs[:, :1] != signs[:, 1:]).long()], dim=1)
    assert infomec(sources, signs, discrete=True).explicitness == pytest.approx(2 / 3, abs=2e-3)


def test_idle_latents_do_not_count() -> None:
    idle = torch.zeros(len(GRID), 2, dtype=torch.int64)
    plain, more = (infomec(GRID, z, discrete=True) for z in (GRID, torch.cat([idle, GRID], dim=1)))
    assert more.active.tolist() == [False, False, True, True, True]
    assert (more.modularity, more.compactness) == pytest.approx((plain.modularity, plain.compactness))


def test_continuous_latents() -> None:
    sources = drawn(400, 3, 2)
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    straight = sources + 0.02 * noise
    turned = straight @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    idle = 0.01 * noise[:, :1]
    one, two = (infomec(sources, torch.cat([z, idle], dim=1), discrete=False) for z in (straight, turned))
    assert one.active.tolist() == [True, True, False]
    assert one.modularity > 0.9 > 0.3 > two.modularity
    assert one.compactness > 0.9 > 0.3 > two.compactness
    assert one.information[0, 0] == pytest.approx(1.0, abs=0.05)
    again = infomec(sources, torch.cat([straight, idle], dim=1), discrete=False)
    assert torch.equal(again.information, one.information)


def test_edges() -> None:
    assert modularity(torch.zeros(4, 2)) == 0.0  # latents that tell nothing
    assert compactness(torch.tensor([[1.0, 0.0], [0.0, 0.0]])) == 0.5
    assert math.isnan(infomec(GRID, GRID[:, :1], discrete=True).compactness)
    assert math.isnan(infomec(GRID, torch.zeros_like(GRID), discrete=True).modularity)


@pytest.mark.parametrize(
    ("sources", "latents", "says"),
    [
        (GRID, GRID[1:], r"\(N, S\)"),
        (GRID[:, 0], GRID, r"\(N, S\)"),
        (GRID[:, :1], GRID, "several sources"),
        (GRID.float(), GRID, "integers"),
        (torch.zeros_like(GRID), GRID, "one value"),
        (GRID, GRID / 0.0, "NaN"),
    ],
)
def test_wrong_input(sources, latents, says) -> None:
    with pytest.raises(TikhonError, match=says):
        infomec(sources, latents, discrete=True)
