"""Boxes against loops over pixels."""

import itertools

import pytest
import torch

from tikhon import TikhonError
from tikhon.math.boxes import checked_fill, erased, erased_regions, inside_boxes, regions_inside


@pytest.mark.parametrize("sizes", [(9,), (5, 7), (3, 4, 5)])
def test_masks_agree_with_a_loop_over_pixels(sizes):
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(sizes, dtype=torch.float64)
    centres = size * torch.rand(6, len(sizes), generator=generator, dtype=torch.float64)
    sides = size * torch.rand(6, len(sizes), generator=generator, dtype=torch.float64)
    found = inside_boxes(sizes, centres, sides)
    assert found.shape == (6, *sizes)
    for row, position in itertools.product(range(6), itertools.product(*map(range, sizes))):
        low, high = centres[row] - sides[row] / 2, centres[row] + sides[row] / 2
        inside = all(low[axis] < i + 0.5 < high[axis] for axis, i in enumerate(position))
        assert bool(found[(row, *position)]) == inside
    assert 0 < found.double().mean() < 0.5


def test_a_box_of_whole_pixels_holds_as_many():
    centres = torch.tensor([[10.0, 7.3], [16.2, 16.9], [0.0, 0.0]])
    assert inside_boxes((32, 32), centres, torch.full((3, 2), 6.0)).flatten(1).sum(1).tolist() == [36, 36, 9]


@pytest.mark.parametrize("shape", [(4, 2, 9), (4, 3, 5, 6), (4, 1, 3, 4, 2)])
def test_what_stands_where_something_was_erased(shape):
    inputs = torch.randn(shape) + 5.0
    mask = torch.rand(shape[0], *shape[2:]) < 0.4
    everywhere = mask[:, None].expand(shape)
    before = inputs.clone()
    for fill in (0.0, -2, "mean", "noise"):
        found = erased(inputs, mask, fill, torch.Generator().manual_seed(1))
        assert torch.equal(inputs, before)
        assert torch.equal(found[~everywhere], inputs[~everywhere])
        if fill == "mean":
            for row, channel in itertools.product(range(shape[0]), range(shape[1])):
                expected = inputs[row, channel].mean().expand(int(mask[row].sum()))
                torch.testing.assert_close(found[row, channel][mask[row]], expected)
        elif fill == "noise":
            assert found[everywhere].unique().numel() == int(everywhere.sum())
            assert abs(found[everywhere].mean()) < 5 / everywhere.sum() ** 0.5
        else:
            assert (found[everywhere] == fill).all()


@pytest.mark.parametrize("fill", ["zero", None, True, float("nan")])
def test_what_is_no_fill_is_refused(fill):
    with pytest.raises(TikhonError, match="fill must be"):
        checked_fill(fill)


def drawn_boxes(rows, sizes):
    """Centres and sides of boxes inside the image, a third of them empty."""
    torch.manual_seed(0)
    sides = 12.0 * torch.rand(rows, 2) * (torch.rand(rows, 1) < 0.67)
    return sides / 2 + torch.rand(rows, 2) * (torch.tensor(sizes) - sides), sides


@pytest.mark.parametrize("sizes", [(32, 32), (17, 40)])
@pytest.mark.parametrize("fill", [0.0, 2.5, "mean"])
def test_regions_are_erased_as_the_mask_says(sizes, fill):
    centres, sides = drawn_boxes(200, sizes)
    inputs = torch.randn(200, 3, *sizes)
    before = inputs.clone()
    expected = erased(inputs, inside_boxes(sizes, centres, sides), fill)
    assert torch.equal(erased_regions(inputs, regions_inside(centres, sides), fill), expected)
    assert torch.equal(inputs, before)
    assert not torch.equal(expected, before)


def test_noise_is_standard_normal_in_the_regions_and_nowhere_else():
    centres, sides = drawn_boxes(200, (32, 32))
    inputs = torch.full((200, 3, 32, 32), 9.0)
    seen = erased_regions(inputs, regions_inside(centres, sides), "noise", torch.Generator().manual_seed(1))
    mask = inside_boxes((32, 32), centres, sides)
    assert torch.equal((seen != inputs).all(1), mask)
    noise = seen.movedim(1, -1)[mask]
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1.0) < 0.03


def test_a_gradient_passes_where_no_region_is():
    inputs = torch.ones(1, 1, 2, 3, requires_grad=True)
    erased_regions(inputs, [(0, slice(None), slice(0, 1), slice(1, 3))], 0.0).sum().backward()
    assert torch.equal(inputs.grad[0, 0], torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))


@pytest.mark.parametrize("fill", [0.0, "mean", "noise"])
def test_regions_are_the_same_in_every_precision(fill):
    """bfloat16, which NumPy has not, is written by torch, and the others by NumPy."""
    centres, sides = drawn_boxes(50, (32, 32))
    regions, inputs = regions_inside(centres, sides), torch.randn(50, 3, 32, 32).bfloat16().double()
    expected = erased_regions(inputs, regions, fill, torch.Generator().manual_seed(1))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = erased_regions(inputs.to(dtype), regions, fill, torch.Generator().manual_seed(1))
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=2e-3)
