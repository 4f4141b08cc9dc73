"""Coherent splats: variation and flow by loops, a decoder whose pixels move together, and maps that come back plain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tikhon
from tikhon import CoherentDecoderReg, TikhonError
from tikhon.methods.fields.coherent_splats import Decoded, flow_difference, masked_variation
from tikhon.studies.fields.coherent_splats import splatted


def normal(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Scene(nn.Module):
    """Maps that are what the model gives, whatever its input."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.depth = nn.Parameter(torch.linspace(0.0, 1.0, shape[-1]).expand(shape).clone())
        self.offset = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.depth.expand(len(x), *self.depth.shape) + 0.0 * self.offset.sum()


def prepared(method: CoherentDecoderReg, model: nn.Module, lr: float = 0.01):
    """(recipe, model, optimizer), ready to train."""
    recipe = tikhon.Recipe(method, base=nn.functional.mse_loss)
    model = recipe.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    recipe.attach(optimizer)
    return recipe, model, optimizer


def test_variation_is_that_of_loops_over_neighbours() -> None:
    x, segments = normal(2, 4, 5), torch.arange(20).reshape(4, 5) // 7
    for labels in (None, segments):
        differences = []
        for i in range(4):
            for j in range(5):
                for k, m in ((i + 1, j), (i, j + 1)):
                    if k < 4 and m < 5 and (labels is None or labels[i, j] == labels[k, m]):
                        differences += (x[:, i, j] - x[:, k, m]).abs().tolist()
        assert float(masked_variation(x, labels)) == pytest.approx(sum(differences) / len(differences))
    assert masked_variation(x, torch.arange(20).reshape(4, 5)) == 0.0
    assert masked_variation(x[:, :1, :1]) == 0.0


def test_true_flow_of_true_positions_differs_nowhere() -> None:
    u, disparity = torch.arange(8.0).expand(5, 8), 1.5 * torch.ones(5, 8)
    points = [torch.stack([u - camera * disparity, disparity], dim=-1) for camera in (0.0, 1.0)]
    flow = torch.stack([disparity, torch.zeros(5, 8)], dim=-1)
    torch.testing.assert_close(flow_difference(points[0], points[1], flow), torch.zeros(5, 8))
    found = flow_difference(points[0], points[1] + torch.tensor([0.0, 0.5]), flow)
    torch.testing.assert_close(found[:, :6], torch.full((5, 6), 0.5))
    assert not found[:, 6:].any()  # 6 + 1.5 is beyond the last pixel


def test_flow_reads_between_pixels() -> None:
    others = normal(4, 6, 2)
    flow = torch.tensor([0.25, 1.5], dtype=torch.float64).expand(4, 6, 2)
    found = flow_difference(torch.zeros_like(others), others, flow)[1, 2]
    expected = 0.5 * (0.75 * (others[2, 2] + others[3, 2]) + 0.25 * (others[2, 3] + others[3, 3]))
    assert float(found) == pytest.approx(float(expected.abs().sum()))


def test_a_scene_starts_where_it_was_and_its_pixels_move_together() -> None:
    before = Scene(2, 1, 16, 16).depth.detach()
    recipe, model, optimizer = prepared(CoherentDecoderReg(0.0, where="depth", width=8), Scene(2, 1, 16, 16))
    assert torch.equal(model.depth, before)
    target = before[None].clone()
    target[0, 0, 0, 4, 4] += 10.0  # one pixel is asked to move
    recipe.loss(torch.zeros(1, 1), target).backward()
    optimizer.step()
    moved = (model.depth - before).detach()[0, 0]
    assert float(moved[4, 4]) > 0.0
    assert float(moved[3:6, 3:6].min()) > 0.5 * float(moved[4, 4])
    trained = model.depth.detach().clone()
    plain = recipe.export()
    assert isinstance(plain.depth, nn.Parameter)
    assert torch.equal(plain.depth, trained)
    assert set(plain.state_dict()) == {"depth", "offset"}


def test_the_term_is_the_variation_of_the_maps() -> None:
    segments = (torch.arange(8) // 4).expand(8, 8)
    losses = {}
    for strength in (0.0, 3.0):
        method = CoherentDecoderReg(strength, segments, where="depth", width=4)
        recipe, _, _ = prepared(method, Scene(1, 1, 8, 8))
        losses[strength] = float(recipe.loss(torch.zeros(1, 1), torch.zeros(1, 1, 1, 8, 8)).detach())
    expected = 3.0 * float(masked_variation(Scene(1, 1, 8, 8).depth.detach(), segments))
    assert losses[3.0] - losses[0.0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("shape", "levels"), [((3, 2, 9, 13), 3), ((5, 6), 2), ((4, 7, 7), 0), ((2, 3, 1, 4, 4), 1)])
def test_maps_of_any_shape(shape, levels) -> None:
    start = normal(*shape)
    decoder = Decoded(start, levels, width=4, seed=0)
    leaf = decoder.right_inverse(start)
    assert torch.equal(decoder(leaf), start)
    moved = (leaf + 0.01).requires_grad_()
    assert decoder(moved).shape == start.shape
    (gradient,) = torch.autograd.grad((decoder(moved) - start).square().sum(), moved)
    code = decoder.shapes[0]
    assert gradient[0, : code[0] * code[1] * code[2] * code[3]].any()  # it moves once the last layer is not 0


def test_splats_are_blended_by_their_weight() -> None:
    centres, values = torch.tensor([[[1.0, 0.5], [2.2, 3.0]]], dtype=torch.float64), normal(2)
    image = splatted(centres, values, size=0.7, side=4)
    for y in range(4):
        for x in range(4):
            place = torch.tensor([x, y], dtype=torch.float64)
            near = (-(centres[0] - place).square().sum(1) / (2 * 0.7**2)).exp()
            assert float(image[0, y, x]) == pytest.approx(float((near * values).sum() / (near.sum() + 1e-6)))
    assert torch.autograd.gradcheck(lambda c: splatted(c, values, 0.7, 4), centres.requires_grad_())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"strength": -1.0}, "strength"),
        ({"levels": -1}, "levels"),
        ({"width": 0}, "width"),
        ({"segments": torch.zeros(2, 2)}, "integers"),
    ],
)
def test_wrong_arguments(arguments, says) -> None:
    with pytest.raises(TikhonError, match=says):
        CoherentDecoderReg(**arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"where": "offset"}, "no map"),
        ({"where": "depht"}, "'depth'"),
        ({"where": "depth", "segments": torch.zeros(8, 1, dtype=torch.int64)}, "broadcast"),
        ({"where": "depth", "segments": torch.zeros(2, 1, 1, 8, 8, dtype=torch.int64)}, "broadcast"),
    ],
)
def test_models_that_do_not_fit(arguments, says) -> None:
    model = Scene(1, 1, 8, 8)
    with pytest.raises(TikhonError, match=says):
        tikhon.Recipe(CoherentDecoderReg(**arguments), base=nn.functional.mse_loss).prepare(model)
    assert isinstance(model.depth, nn.Parameter)
