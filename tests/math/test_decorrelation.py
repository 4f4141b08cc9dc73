"""Barlow twins' numbers by the matrix of correlations, for more samples than features and for fewer."""

from __future__ import annotations

import pytest
import torch

from tikhon.math.decorrelation import barlow_twins, standardised


@pytest.mark.parametrize(("rows", "features"), [(9, 4), (4, 9), (5, 5)])
def test_both_ways_give_what_the_correlations_say(rows: int, features: int) -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = map(standardised, torch.randn(2, rows, features, dtype=torch.float64, generator=generator))
    one.requires_grad_()
    found = barlow_twins(one, other)
    c = one.T @ other / rows
    diagonal = torch.eye(features, dtype=torch.bool)
    expected = (1 - c[diagonal]).square().sum(), c[~diagonal].square().sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found[1], one), torch.autograd.grad(expected[1], one))
