"""Draws: dropout by a rate in a tensor."""

import pytest
import torch
from torch.nn import functional as F

from tikhon.math.random import dropped


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
