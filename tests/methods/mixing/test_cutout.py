"""Cutout: squares in what the model sees, their size, their place and the chance of every pixel."""

import pytest
import torch
from torch import nn

import tikhon


def attached(method, shape, outputs=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(torch.tensor(shape[1:]).prod()), outputs))
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    recipe = tikhon.Recipe(method, seed=1)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recipe.attach(optimizer, steps=4)
    return recipe, optimizer, seen


@pytest.mark.parametrize("shape", [(64, 2, 20), (64, 3, 12, 16), (64, 1, 6, 8, 10)])
@pytest.mark.parametrize("side", [0.5, 0.25])
def test_every_sample_loses_a_box_of_its_own_in_all_channels(shape, side):
    recipe, _, seen = attached(tikhon.Cutout(side=side), shape)
    inputs = torch.ones(shape)
    recipe.loss(inputs, torch.arange(64) % 3)
    assert torch.equal(inputs, torch.ones(shape))
    (output,) = seen
    gone = output == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    assert (gone | (output == 1)).all()
    wholes = 0
    for mask in gone[:, 0]:
        lengths, inside = [], True
        for axis, size in enumerate(shape[2:]):
            rest = [other for other in range(mask.ndim) if other != axis]
            line = mask.any(dim=rest) if rest else mask
            places = line.nonzero().flatten().tolist()
            assert places == list(range(places[0], places[-1] + 1))
            assert len(places) <= round(side * size) + 1
            border = places[0] == 0 or places[-1] == size - 1
            if not border:
                assert abs(len(places) - side * size) < 1
            inside &= not border
            lengths.append(len(places))
        assert int(mask.sum()) == int(torch.tensor(lengths).prod())  # a full box
        wholes += inside
    assert wholes >= 3
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in gone[:, 0]}) > 5


def test_the_chance_of_a_pixel_is_the_share_of_centres_that_reach_it():
    """Centres are uniform over the image, so pixels at the border are reached by half as many."""
    recipe, _, seen = attached(tikhon.Cutout(side=0.5), (20_000, 1, 8))
    recipe.loss(torch.ones(20_000, 1, 8), torch.zeros(20_000, dtype=torch.int64))
    found = (seen[0] == 0).double().mean((0, 1))
    pixels = torch.arange(8, dtype=torch.float64) + 0.5
    expected = ((pixels + 2).clamp(max=8) - (pixels - 2).clamp(min=0)) / 8
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def test_the_side_follows_a_schedule_and_zero_is_plain():
    recipe, optimizer, seen = attached(tikhon.Cutout(side=tikhon.linear(0.0, 1.0)), (256, 1, 40))
    inputs = torch.ones(256, 1, 40)
    shares = []
    for _ in range(5):
        recipe.loss(inputs, torch.zeros(256, dtype=torch.int64))
        optimizer.step()
        shares.append(float((seen[-1] == 0).float().mean()))
    # A side of s covers on average s - s^2 / 4 of its axis: what lies beyond the border is lost.
    assert shares == pytest.approx([s - s * s / 4 for s in (0.0, 0.25, 0.5, 0.75, 1.0)], abs=0.03)


def test_all_inputs_of_a_batch_share_the_squares():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, image, depth):
            self.seen = image.detach(), depth.detach()
            return (image + depth).mean((1, 2, 3))[:, None] * self.scale

    model = Two()
    recipe = tikhon.Recipe(tikhon.Cutout())
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    image = torch.ones(4, 3, 8, 8)
    recipe.loss((image, image[:, :1]), torch.tensor([0, 1, 0, 1]))
    assert torch.equal(model.seen[0][:, :1], model.seen[1])
    assert not torch.equal(model.seen[0], image)
    with pytest.raises(tikhon.TikhonError, match="share no square"):
        recipe.loss((image, image[..., :4]), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("inputs", [torch.zeros(4, 16), torch.zeros(4, 1, 16, dtype=torch.uint8)])
def test_what_has_no_place_to_erase_is_refused(inputs):
    recipe, _, _ = attached(tikhon.Cutout(), (4, 1, 16))
    with pytest.raises(tikhon.TikhonError, match="cutout erases squares of signals"):
        recipe.loss(inputs, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("arguments", [{"side": -0.1}, {"side": 1.1}, {"fill": "zero"}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.Cutout(**arguments)
