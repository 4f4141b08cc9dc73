"""What domains share and in what they differ, by loops over domains and pairs."""

from __future__ import annotations

from itertools import combinations

import torch
from torch.nn import functional as F

from tikhon.math.domains import dispersion, domain_means, mean_over, mismatch


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_means_of_domains_are_those_of_their_rows() -> None:
    values, of = drawn(9, 2, 3), torch.tensor([0, 3, 3, 0, 1, 0, 1, 3, 3])
    members = F.one_hot(of, 4).T.double()
    found = domain_means(values, members)
    for domain in (0, 1, 3):
        torch.testing.assert_close(found[domain], values[of == domain].mean(0))
    assert not found[2].any()
    mass = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = domain_means(values[:, 0, 0] * mass, members, mass)
    for domain in (0, 1, 3):
        rows = of == domain
        torch.testing.assert_close(found[domain], (values[rows, 0, 0] * mass[rows]).sum() / mass[rows].sum())


def test_dispersion_is_the_mean_over_pairs_that_are_present() -> None:
    values, present = drawn(5, 3), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    pairs = [(values[i] - values[j]).square().sum() for i, j in combinations((0, 2, 3), 2)]
    torch.testing.assert_close(dispersion(values, present), torch.stack(pairs).mean())
    for few in (torch.zeros(5).double(), F.one_hot(torch.tensor(2), 5).double()):
        assert dispersion(values, few) == 0.0
        assert mismatch(values, mean_over(values, few), few) == 0.0
