"""Draws: dropout by a rate in a tensor, and uniform draws of sixteen bits."""

import pytest
import torch
from torch.nn import functional as F

from tikhon.math.random import centred, dropped

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 0.875, 1.0])
def test_a_rate_in_a_tensor_drops_as_many_and_scales_the_others(p, dtype):
    torch.manual_seed(0)
    found = dropped(torch.full((200, 100), 3.0, dtype=dtype), torch.tensor(p))
    kept = found != 0
    assert found.dtype == dtype
    assert abs(kept.double().mean() - (1 - p)) < 5 * (p * (1 - p) / 20_000) ** 0.5 + 1e-12
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 3.0 / (1.0 - p) if p < 1 else 0.0))


def test_a_number_is_torchs_dropout_to_the_bit():
    features = torch.randn(20, 30)
    torch.manual_seed(0)
    expected = F.dropout(features, 0.3)
    torch.manual_seed(0)
    assert torch.equal(dropped(features, 0.3), expected)


def test_the_gradient_is_the_mask():
    features = torch.randn(20, 30, requires_grad=True)
    found = dropped(features, torch.tensor(0.3))
    found.sum().backward()
    torch.testing.assert_close(features.grad * features.detach(), found.detach())


def test_rates_of_rows_drop_by_row_and_by_the_generator_that_is_given():
    features, rates = torch.ones(3, 5000), torch.tensor([[0.0], [0.3], [1.0]])
    state = torch.get_rng_state()
    found = dropped(features, rates, torch.Generator().manual_seed(1))
    assert torch.equal(found, dropped(features, rates, torch.Generator().manual_seed(1)))
    assert not torch.equal(found, dropped(features, rates, torch.Generator().manual_seed(2)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close((found == 0).double().mean(1), rates[:, 0].double(), rtol=0, atol=0.03)


def test_centred_draws_are_uniform_symmetric_and_independent():
    torch.manual_seed(0)
    draws = centred((1003, 999), torch.float64, CPU)
    assert draws.shape == (1003, 999)
    assert (draws.min(), draws.max()) == (-0.5 + 2.0**-16, 0.5 - 2.0**-16)
    found = torch.histc(draws, 64, -0.5, 0.5)
    expected = draws.numel() / 64
    assert ((found - expected) ** 2 / expected).sum() < 110  # chi-squared of 63 degrees: above in 2 of 10,000 seeds
    assert draws.mean().abs() < 4 * draws.std() / draws.numel() ** 0.5
    for lag in (1, 2, 3, 4):  # neighbours are parts of one word
        moved = draws.flatten()
        correlation = (moved[lag:] * moved[:-lag]).mean() / draws.var()
        assert correlation.abs() < 4 / draws.numel() ** 0.5


def test_centred_draws_follow_the_global_generator():
    torch.manual_seed(0)
    first = centred((5,), torch.float32, CPU)
    assert not torch.equal(first, centred((5,), torch.float32, CPU))
    torch.manual_seed(0)
    assert torch.equal(first, centred((5,), torch.float32, CPU))
