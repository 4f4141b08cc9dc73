"""Random erasing: areas and shapes against the paper's loop, and what the model sees."""

import math
import random

import pytest
import scipy.stats
import torch
from torch import nn

import tikhon
from tikhon.methods.mixing.random_erasing import TRIES, rectangles


def by_the_papers_loop(height, width, smallest, largest, aspect, source):
    """(area, ratio, top, left) of one rectangle, tried until it fits (algorithm 1)."""
    while True:
        area = source.uniform(smallest, largest) * height * width
        ratio = source.uniform(aspect, 1 / aspect)
        h, w = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if h <= height and w <= width:
            return h * w / (height * width), h / w, source.uniform(0, height - h), source.uniform(0, width - w)


@pytest.mark.parametrize("sizes", [(32, 32), (24, 60)])
def test_areas_shapes_and_places_are_those_of_the_papers_loop(sizes):
    source = random.Random(0)
    expected = torch.tensor([by_the_papers_loop(*sizes, 0.02, 0.4, 0.3, source) for _ in range(5000)])
    draws = torch.rand(5000, TRIES, 4, generator=torch.Generator().manual_seed(0))
    centres, sides = rectangles(sizes, draws, 0.02, 0.4, 0.3)
    corners = centres - sides / 2
    found = torch.stack([sides.prod(1) / math.prod(sizes), sides[:, 0] / sides[:, 1], corners[:, 0], corners[:, 1]], 1)
    for column in range(4):
        assert scipy.stats.ks_2samp(found[:, column].numpy(), expected[:, column].numpy()).pvalue > 1e-3
    assert (corners > -1e-3).all()
    assert (centres + sides / 2 < torch.tensor(sizes) + 1e-3).all()


def test_the_first_try_that_fits_is_taken_and_none_where_none_does():
    draws = torch.tensor([[0.5, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 1.0], [0.5, 0.0, 0.0, 0.0]])[None]
    centres, sides = rectangles((10, 10), draws, 0.5, 0.5, 0.25)  # too high (r = 4), too wide (r = 1 / 4)
    assert torch.equal(sides, torch.zeros(1, 2))
    centres, sides = rectangles((10, 40), draws, 0.25, 0.25, 0.25)
    torch.testing.assert_close(sides, torch.tensor([[5.0, 20.0]]))  # the second
    torch.testing.assert_close(centres, torch.tensor([[5.0, 30.0]]))


def seen_by(method, inputs, steps=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(inputs.shape[1:]), 3))
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    recipe = tikhon.Recipe(method, seed=1)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recipe.attach(optimizer)
    before = inputs.clone()
    for _ in range(steps):
        recipe.loss(inputs, torch.arange(len(inputs)) % 3)
        optimizer.step()
    assert torch.equal(inputs, before)
    return torch.stack(seen)


def test_a_share_of_the_images_loses_one_rectangle():
    output = seen_by(tikhon.RandomErasing(p=0.3, fill=0.0), torch.ones(2000, 2, 16, 16))[0]
    gone = output == 0
    assert torch.equal(gone[:, 0], gone[:, 1])
    touched = gone.flatten(1).any(1)
    assert abs(touched.double().mean() - 0.3) < 5 * (0.3 * 0.7 / 2000) ** 0.5
    for mask in gone[touched][:50, 0]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert int(mask.sum()) == int(area)
    assert gone[touched].double().mean() == pytest.approx(0.19, abs=0.02)  # U(0.02, 0.4), wide ones left out


def test_noise_is_drawn_for_every_pixel_and_batch():
    first, second = seen_by(tikhon.RandomErasing(p=1.0), torch.full((64, 3, 16, 16), 9.0), steps=2)
    noise = first[first != 9.0]
    assert noise.unique().numel() > 0.99 * noise.numel()
    assert scipy.stats.kstest(noise.numpy(), "norm").pvalue > 1e-3
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "inputs", [torch.zeros(4, 16), torch.zeros(4, 1, 16), torch.zeros(4, 1, 4, 4, dtype=torch.uint8)]
)
def test_what_is_no_image_is_refused(inputs):
    with pytest.raises(tikhon.TikhonError, match="random_erasing erases rectangles of images"):
        seen_by(tikhon.RandomErasing(), inputs)


@pytest.mark.parametrize(
    "arguments",
    [{"p": 1.1}, {"smallest": -0.1}, {"largest": 1.5}, {"smallest": 0.5}, {"aspect": 0.0}, {"fill": "random"}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.RandomErasing(**arguments)
