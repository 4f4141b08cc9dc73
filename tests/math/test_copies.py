"""Copies beside `clone`."""

import pytest
import torch

from tikhon.math.copies import LARGE, copied


def large(dtype):
    return torch.randn(LARGE // 4 // 1024 + 3, 1024).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [7, None])
def test_a_copy_has_the_values_and_memory_of_its_own(rows, dtype):
    values = large(dtype)[:rows]
    copy = copied(values)
    assert torch.equal(copy, values)
    assert (copy.dtype, copy.shape, copy.stride()) == (values.dtype, values.shape, values.stride())
    copy.zero_()
    assert not torch.equal(copy, values)


def test_large_copies_lie_in_memory_of_numpys():
    assert large(torch.float32).untyped_storage().resizable()
    assert not copied(large(torch.float32)).untyped_storage().resizable()
    assert copied(large(torch.float32)[:7]).untyped_storage().resizable()


def test_an_order_in_memory_other_than_that_of_the_axes_is_kept():
    values = torch.randn(64, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    assert values.nbytes > LARGE
    assert copied(values).stride() == values.stride()


def test_a_gradient_passes_through_a_large_copy():
    values = large(torch.float32).requires_grad_()
    copied(values).square().sum().backward()
    assert torch.equal(values.grad, 2.0 * values)


def test_transforms_see_a_copy():
    values = large(torch.float32)[None].expand(2, -1, -1)
    assert torch.equal(torch.func.vmap(copied)(values), values)
    values = large(torch.float32)
    assert torch.equal(torch.func.grad(lambda one: copied(one).square().sum())(values), 2.0 * values)
