"""CutMix: boxes by counting pixels, the official truncation in numpy, shares of classes in what the model sees."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.mixing.cutmix import cut_box, cutmix, share_outside, truncated_box


def test_box_holds_the_pixels_whose_centres_lie_inside():
    random = np.random.default_rng(0)
    for _ in range(300):
        d = random.integers(1, 4)
        sizes, share = tuple(int(one) for one in random.integers(1, 12, d)), float(random.random())
        centre = tuple(random.random(d) * sizes)
        box = cut_box(sizes, share, centre)
        for side, size, middle in zip(box, sizes, centre, strict=True):
            half = 0.5 * size * (1 - share) ** (1 / d)
            inside = [pixel for pixel in range(size) if abs(pixel + 0.5 - middle) < half]
            assert list(range(size))[side] == inside


def test_box_has_the_area_asked_for_on_average():
    """Where it need not be clipped: rounding is not biased, as the official truncation is."""
    draws = np.random.default_rng(1).uniform(3.0, 5.0, (4000, 2))
    areas = [1 - share_outside((8, 8), cut_box((8, 8), 0.5, tuple(centre))) for centre in draws]
    truncated = [1 - share_outside((8, 8), truncated_box((8, 8), 0.5, tuple(centre))) for centre in draws]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.01)
    assert np.mean(truncated) == pytest.approx(0.25)


def test_truncated_box_agrees_with_numpy():
    random = np.random.default_rng(2)
    for width, height in [(8, 8), (32, 32), (5, 17), (224, 224)]:
        for share in [0.0, 1.0, 0.75, 0.36, 0.19, *random.random(200)]:
            x, y = random.integers(width), random.integers(height)
            ratio = np.sqrt(1.0 - share)
            w, h = int(width * ratio), int(height * ratio)
            expected = (
                slice(np.clip(x - w // 2, 0, width), np.clip(x + w // 2, 0, width)),
                slice(np.clip(y - h // 2, 0, height), np.clip(y + h // 2, 0, height)),
            )
            assert truncated_box((width, height), share, (float(x) + 0.9, float(y))) == expected


@pytest.mark.parametrize("sizes", [(7,), (4, 5), (3, 4, 2)])
def test_pasting_agrees_with_a_loop_over_pixels(sizes):
    x, permutation = torch.randn(3, 2, *sizes), torch.tensor([1, 2, 0])
    before = x.clone()
    box = tuple(slice(1, size - 1) for size in sizes)
    mixed = cutmix(x, permutation, box)
    assert torch.equal(x, before)
    pasted = 0
    for position in itertools.product(*map(range, sizes)):
        inside = all(side.start <= i < side.stop for side, i in zip(box, position, strict=True))
        pasted += inside
        source = x[permutation] if inside else x
        assert torch.equal(mixed[(..., *position)], source[(..., *position)])
    assert share_outside(sizes, box) == 1 - pasted / np.prod(sizes)


def run(method, sizes, steps, rows=5):
    """Train on inputs that hold their row's number in every pixel; returns what the model saw, and the losses."""
    torch.manual_seed(0)
    pixels = int(np.prod(sizes))
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, rows)).double()
    seen, losses = [], []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    recipe = tikhon.Recipe(method, seed=1)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recipe.attach(optimizer)
    x = torch.arange(rows, dtype=torch.float64).reshape(-1, 1, *[1] * len(sizes)).expand(-1, 1, *sizes).contiguous()
    before = x.clone()
    for _ in range(steps):
        with torch.no_grad():
            plain = model[1].weight.clone(), model[1].bias.clone()
        optimizer.zero_grad()
        loss = recipe.loss(x, torch.arange(rows))
        loss.backward()
        losses.append((loss.detach(), plain))
        optimizer.step()
    assert torch.equal(x, before)
    return seen, losses


@pytest.mark.parametrize("sizes", [(40,), (8, 8), (4, 5, 3)])
@pytest.mark.parametrize("truncate", [False, True])
def test_label_shares_are_the_shares_of_pixels(sizes, truncate):
    """Each row's target is the histogram of what its input holds, exactly."""
    rows, pixels = 5, int(np.prod(sizes))
    seen, losses = run(tikhon.CutMix(truncate=truncate), sizes, steps=20)
    mixed_steps = 0
    for inputs, (loss, (weight, bias)) in zip(seen, losses, strict=True):
        flat = inputs.reshape(rows, pixels)
        shares = torch.stack([(flat == k).sum(1) for k in range(rows)], dim=1).double() / pixels
        mixed_steps += bool((shares.max(1).values < 1).any())
        expected = F.cross_entropy(F.linear(flat, weight, bias), shares)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)
    assert mixed_steps > 12


def test_p_is_the_share_of_batches_that_are_mixed():
    def mixed(p):
        seen, _ = run(tikhon.CutMix(p=p), (16, 16), steps=200)
        return sum(bool((inputs != inputs[..., :1, :1]).any()) for inputs in seen) / 200

    assert mixed(0.0) == 0.0
    assert mixed(0.5) == pytest.approx(0.5 * mixed(1.0), abs=0.12)
    assert mixed(1.0) > 0.9


def test_all_inputs_of_a_batch_share_the_box():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, image, depth):
            self.seen = image.detach(), depth.detach()
            return (image + depth).mean((1, 2, 3))[:, None] * self.scale

    model = Two()
    recipe = tikhon.Recipe(tikhon.CutMix())
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    image = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 8, 8)
    recipe.loss((image, image[:, :1] + 10.0), torch.tensor([0, 1, 0, 1]))
    assert torch.equal(model.seen[0][:, :1] + 10.0, model.seen[1])
    assert not torch.equal(model.seen[0], image)
    with pytest.raises(tikhon.TikhonError, match="share no box"):
        recipe.loss((image, image[..., :4]), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("inputs", "target", "words"),
    [
        (torch.zeros(4, 16), torch.zeros(4, dtype=torch.int64), "unsqueeze"),
        (torch.zeros(4, 1, 8), torch.zeros(4, 8, dtype=torch.int64), "one for each position"),
        (torch.zeros(4, 1, 8, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), "token ids"),
    ],
)
def test_what_cannot_be_cut_is_refused(inputs, target, words):
    recipe = tikhon.Recipe(tikhon.CutMix())
    model = recipe.prepare(nn.Linear(16, 2))
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(tikhon.TikhonError, match=words):
        recipe.loss(inputs, target)


@pytest.mark.parametrize("arguments", [{"alpha": -0.1}, {"p": 1.1}, {"p": float("nan")}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.CutMix(**arguments)
