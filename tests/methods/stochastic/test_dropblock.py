"""DropBlock against loops over pixels, the exact chance of every pixel, and the count of what is left."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import tikhon
from tikhon.methods.stochastic.dropblock import in_blocks, seed_rate

LABELS = torch.arange(8) % 3


@pytest.mark.parametrize(
    ("sizes", "blocks"), [((9,), (3,)), ((6, 7), (2, 3)), ((5, 5), (5, 4)), ((4, 5, 3), (2, 2, 3)), ((4, 4), (1, 1))]
)
def test_blocks_agree_with_a_loop_over_seeds(sizes, blocks):
    places = [n - b + 1 for n, b in zip(sizes, blocks, strict=True)]
    seeds = (torch.rand(3, 2, *places, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    expected = torch.zeros(3, 2, *sizes)
    for index in seeds.nonzero().tolist():
        region = tuple(slice(begin, begin + side) for begin, side in zip(index[2:], blocks, strict=True))
        expected[(*index[:2], *region)] = 1.0
    assert torch.equal(in_blocks(seeds, blocks), expected)
    assert expected.any()


def test_the_chance_of_a_seed_is_that_of_the_paper():
    """timm writes it as gamma * p * total / block^2 / ((W - b + 1) (H - b + 1)), for square blocks."""
    for n, b, p in [(14, 7, 0.1), (56, 7, 0.05), (7, 7, 0.2)]:
        assert seed_rate((n, n), (b, b), p) == pytest.approx(p / b**2 * n**2 / (n - b + 1) ** 2)
    assert seed_rate((7, 7), (7, 7), 0.2) == pytest.approx(0.2)  # a block is the whole map


@pytest.mark.parametrize("sizes", [(12,), (8, 8), (5, 4, 6)])
def test_few_blocks_drop_the_share_asked_for(sizes):
    """E[places dropped] is the sum over places of 1 - (1 - gamma)^(blocks that reach the place), about p."""
    p, blocks = 0.02, tuple(min(3, n) for n in sizes)
    gamma = seed_rate(sizes, blocks, p)
    reached = 0.0
    for place in itertools.product(*map(range, sizes)):
        reaching = math.prod(
            min(i, n - b) - max(0, i - b + 1) + 1 for i, n, b in zip(place, sizes, blocks, strict=True)
        )
        reached += 1 - (1 - gamma) ** reaching
    assert reached / math.prod(sizes) == pytest.approx(p, rel=0.05)


def attached(method, shape=(8, 1, 8, 8), steps=10):
    """A network whose identity the method acts after; returns what comes out of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.Identity(), nn.Flatten(), nn.Linear(math.prod(shape[1:]), 3))
    seen = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.detach().clone()))
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recipe.attach(optimizer, steps=steps)
    return model, recipe, optimizer, seen


@pytest.mark.parametrize("shape", [(8, 4, 20), (8, 4, 8, 8), (8, 2, 6, 6, 6)])
def test_a_map_loses_whole_blocks_and_keeps_its_sum(shape):
    _, recipe, _, seen = attached(tikhon.DropBlock(at="0", block_size=3, p=0.2), shape)
    for _ in range(5):
        recipe.loss(torch.ones(shape), LABELS)
    for output in seen:
        kept = output != 0
        torch.testing.assert_close(output.sum(), torch.tensor(float(output.numel())))
        torch.testing.assert_close(output[kept], torch.full_like(output[kept], output.numel() / float(kept.sum())))
        assert 0.05 < 1 - kept.double().mean() < 0.35
        # Opening by a block changes nothing: every place that is gone lies in a whole block that is gone.
        gone = (~kept).double()
        pool = {3: nn.functional.max_pool1d, 4: nn.functional.max_pool2d, 5: nn.functional.max_pool3d}[len(shape)]
        seeds = -pool(-gone, 3, stride=1)
        assert torch.equal(in_blocks(seeds, (3,) * (len(shape) - 2)), gone)
        assert not torch.equal(gone[:, 0], gone[:, 1])  # every channel has a mask of its own
        assert not torch.equal(gone[0], gone[1])
    assert len({float(output.max()) for output in seen}) > 1


def test_a_block_is_cut_to_the_map_and_the_share_follows_the_schedule():
    shape = (8, 200, 4, 4)
    _, recipe, optimizer, seen = attached(tikhon.DropBlock(at="0", p=tikhon.linear(0.0, 0.5)), shape, steps=5)
    for _ in range(6):
        recipe.loss(torch.ones(shape), LABELS)
        optimizer.step()
    whole = [(output == 0).flatten(2) for output in seen]
    assert all((one.all(2) == one.any(2)).all() for one in whole)
    shares = [float(one.double().mean()) for one in whole]
    assert shares == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=0.05)


def test_the_default_rises_to_a_tenth():
    method = tikhon.DropBlock(at="0")
    assert method.block_size == 7
    assert method.p == tikhon.linear(0.0, 0.1)
    model, recipe, _, seen = attached(tikhon.DropBlock(at="0", p=1.0, block_size=8))
    recipe.loss(torch.ones(8, 1, 8, 8), LABELS)
    assert not seen[0].any()  # everything dropped is zero, not 0 / 0
    assert torch.equal(model.eval()[:2](torch.ones(8, 1, 8, 8)), torch.ones(8, 1, 8, 8))


def test_half_precision_counts_in_float32():
    method = tikhon.DropBlock(at="0", block_size=3, p=0.1)
    _, recipe, _, seen = attached(method, (8, 64, 32, 32))
    recipe._run.model.to(torch.bfloat16)
    recipe.loss(torch.ones(8, 64, 32, 32, dtype=torch.bfloat16), LABELS)
    assert seen[0].dtype == torch.bfloat16
    assert seen[0].float().mean() == pytest.approx(1.0, abs=4e-3)


def test_errors():
    for block_size in (0, 2.0, True):
        with pytest.raises(tikhon.TikhonError, match="block_size must be a positive integer"):
            tikhon.DropBlock(at="0", block_size=block_size)
    with pytest.raises(tikhon.TikhonError, match="p must be"):
        tikhon.DropBlock(at="0", p=-0.1)
    _, recipe, _, _ = attached(tikhon.DropBlock(at="2", p=0.1))
    with pytest.raises(tikhon.TikhonError, match=r"not of \(8, 64\)"):
        recipe.loss(torch.ones(8, 1, 8, 8), LABELS)
    with pytest.raises(tikhon.TikhonError, match="has no module '9'"):
        attached(tikhon.DropBlock(at="9"))
