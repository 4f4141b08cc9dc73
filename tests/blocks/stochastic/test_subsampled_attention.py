"""Subsampled attention: a masked softmax, torch's own attention, who sees whom, the arithmetic, and the ensemble."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tikhon
from tikhon import SubsampledAttention, TikhonError
from tikhon.blocks.stochastic.subsampled_attention import (
    local_order,
    random_sources,
    subsampled_attention,
    subsampled_outputs,
    windowed_attention,
)

LENGTH = 11


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def by_mask(query, key, value, seen):
    """softmax over the sources that each query sees, query by query; 0 where it sees none."""
    out = torch.zeros_like(query)
    for b in range(len(query)):
        for h in range(query.shape[1]):
            for i in range(query.shape[2]):
                sources = seen(b, i)
                if sources:
                    scores = key[b, h, sources] @ query[b, h, i] / math.sqrt(query.shape[3])
                    out[b, h, i] = torch.softmax(scores, 0) @ value[b, h, sources]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_every_query_sees_the_same_part(causal, padded) -> None:
    query, key, value = drawn(2, 3, LENGTH, 4), drawn(2, 3, LENGTH, 4).flip(0), drawn(2, 3, LENGTH, 4).flip(2)
    sources = torch.tensor([7, 2, 9])
    padding = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [8]]) if padded else None

    def seen(b, i):
        return [j for j in (2, 7, 9) if (not causal or j <= i) and not (padded and bool(padding[b, j]))]

    found = subsampled_attention(query, key, value, sources, causal, padding)
    torch.testing.assert_close(found, by_mask(query, key, value, seen))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("window", [1, 4, LENGTH])
def test_a_window_sees_the_sources_in_its_places(causal, padded, window) -> None:
    query, key, value = drawn(2, 3, LENGTH, 4), drawn(2, 3, LENGTH, 4).flip(0), drawn(2, 3, LENGTH, 4).flip(2)
    order = torch.tensor([1, 0, 3, 2, 5, 8, 4, 6, 7, 10, 9])
    padding = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [8]]) if padded else None

    def seen(b, i):
        first = i // window * window
        placed = order[first : first + window].tolist()
        return [j for j in placed if (not causal or j <= i) and not (padded and bool(padding[b, j]))]

    found = windowed_attention(query, key, value, order, window, causal, padding)
    torch.testing.assert_close(found, by_mask(query, key, value, seen))


@pytest.mark.parametrize("causal", [False, True])
def test_all_of_it_is_torchs_attention(causal) -> None:
    """keep=1 and evaluation are dense, in the layout of nn.MultiheadAttention."""
    torch.manual_seed(0)
    block = SubsampledAttention(12, heads=3, keep=1.0, causal=causal).double()
    reference = nn.MultiheadAttention(12, 3, batch_first=True).double()
    reference.in_proj_weight.data, reference.in_proj_bias.data = block.qkv.weight.data, block.qkv.bias.data
    reference.out_proj.load_state_dict(block.out.state_dict())
    x = drawn(2, LENGTH, 12)
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64) if causal else None
    expected = reference(x, x, x, attn_mask=mask, need_weights=False)[0]
    torch.testing.assert_close(block(x), expected)
    block.keep = 0.25
    assert not torch.allclose(block(x), expected)
    torch.testing.assert_close(block.eval()(x), expected)
    for spread in (None, 2.0):
        block.spread = spread
        padded = block.train()(x, padding=torch.zeros(2, LENGTH, dtype=torch.bool))
        assert padded.shape == expected.shape


def test_sources_are_drawn_alike_and_order_stays_near() -> None:
    torch.manual_seed(0)
    counts = torch.zeros(8)
    for _ in range(2000):
        counts[random_sources(8, 2)] += 1
    assert ((counts / 2000 - 0.25).abs() < 0.04).all()
    moved = [(local_order(400, spread) - torch.arange(400)).abs().float().mean() for spread in (2.0, 20.0)]
    assert 1.0 < moved[0] < 4.0
    assert 10.0 < moved[1] < 40.0
    assert torch.equal(local_order(30, 7.0).sort().values, torch.arange(30))


@pytest.mark.parametrize("spread", [None, 3.0])
def test_nothing_comes_from_the_future(spread) -> None:
    torch.manual_seed(0)
    block = SubsampledAttention(8, heads=2, keep=0.5, spread=spread, causal=True).double()
    x = drawn(1, LENGTH, 8).requires_grad_()
    torch.manual_seed(1)
    gradient = torch.autograd.grad(block(x)[0, 5].sum(), x)[0][0]
    assert gradient[:6].abs().sum() > 0.0
    assert gradient[6:].abs().sum() == 0.0


@pytest.mark.parametrize("spread", [None, 8.0])
def test_a_quarter_of_the_sequence_costs_a_quarter(spread) -> None:
    """Of the products inside attention; the projections cost what they did."""

    def flops(keep):
        block = SubsampledAttention(16, heads=2, keep=keep, spread=spread)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused kernels are not counted
            block(torch.zeros(2, 64, 16))
        return counter.get_total_flops() - 4 * 2 * 2 * 64 * 16 * 16

    assert flops(0.25) == flops(1.0) / 4 > 0


def test_the_ensemble_has_members_and_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(SubsampledAttention(8, keep=0.25), SubsampledAttention(8, keep=0.25, spread=2.0)).eval()
    x = torch.randn(2, LENGTH, 8)
    dense = model(x)
    members = subsampled_outputs(model, x, passes=5)
    assert members.shape == (5, *dense.shape)
    assert not torch.allclose(members[0], members[1])
    assert torch.equal(model(x), dense)
    with pytest.raises(TikhonError, match="eval mode"):
        subsampled_outputs(model.train(), x)
    with pytest.raises(TikhonError, match="no SubsampledAttention"):
        subsampled_outputs(nn.Linear(8, 8).eval(), x)


@pytest.mark.parametrize("spread", [None, 3.0])
def test_it_compiles_and_stays_in_an_exported_model(spread) -> None:
    model = nn.Sequential(SubsampledAttention(8, keep=0.5, spread=spread, causal=True), nn.Flatten(), nn.LazyLinear(3))
    x, y = torch.randn(4, LENGTH, 8), torch.tensor([0, 1, 2, 0])
    model(x)
    torch._dynamo.reset()
    torch.manual_seed(2)
    eager = model(x)
    torch.manual_seed(2)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), eager)
    recipe = tikhon.Recipe(tikhon.MixUp())
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    recipe.loss(x, y).backward()
    optimizer.step()
    assert isinstance(recipe.export()[0], SubsampledAttention)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"heads": 3}, "multiple of heads"), ({"keep": 0.0}, r"\(0, 1\]"), ({"spread": -1.0}, "at least 0 tokens")],
)
def test_arguments_that_do_not_fit(arguments, says) -> None:
    with pytest.raises(TikhonError, match=says):
        SubsampledAttention(8, **arguments)
