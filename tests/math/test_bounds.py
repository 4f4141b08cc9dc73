"""Bounds of networks: corners of the box where they are exact, sampled points where not, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.math.bounds import Interval
from tikhon.math.intervals import box_around, linear_margins, margins

SEED = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=SEED)


def corners(centre, radius):
    """Every corner of one box, as a batch."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=centre.numel())), dtype=torch.float64)
    return centre + radius * signs.reshape(-1, *centre.shape[1:])


class Residual(nn.Module):
    """What a forward pass of one's own does to a tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = x.flatten(1)
        y = x + self.second(F.relu(self.first(x)))
        signs = torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)
        return 1.0 + 2.0 * (y - 0.5 * x).view(-1, 4, 2).mean(2) * signs


def with_statistics(model):
    """Batch norm with running statistics that are not those of its initialisation, in eval mode."""
    with torch.no_grad():
        for _ in range(20):
            model(drawn(16, 2, 2, 2))
    return model.eval()


def linear_networks():
    return {
        "linear": nn.Sequential(nn.Flatten(), nn.Linear(8, 3)),
        "convolution": nn.Sequential(nn.Conv2d(2, 6, 2, padding=1, stride=2, groups=2), nn.Flatten()),
        "norm": nn.Sequential(nn.BatchNorm2d(2), nn.Flatten()),
        "average": nn.Sequential(nn.Conv2d(2, 4, 1), nn.Identity()),
        "flat norm": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(0.5)),
    }


@pytest.mark.parametrize("name", linear_networks())
def test_one_linear_layer_is_bounded_exactly(name) -> None:
    model = linear_networks()[name].double()
    for norm in model:
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(norm.weight)
    with_statistics(model)
    centre, radius = drawn(1, 2, 2, 2), drawn(1, 2, 2, 2).abs()
    found, reached = model(Interval(centre, radius)), model(corners(centre, radius))
    torch.testing.assert_close(found.lower[0], reached.amin(0))
    torch.testing.assert_close(found.upper[0], reached.amax(0))


def networks():
    return {
        "residual": Residual(),
        "max": nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3)),
        "mean": nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "smooth": nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid()),
        "pools": nn.Sequential(nn.Conv2d(2, 4, 1), nn.AvgPool2d(2), nn.Flatten(), nn.ReLU(), nn.Linear(4, 3)),
    }


@pytest.mark.parametrize("name", networks())
def test_no_output_leaves_the_bounds_and_a_point_has_none_to_leave(name) -> None:
    model = with_statistics(networks()[name].double())
    centre, radius = drawn(1, 2, 2, 2), 0.5 * drawn(1, 2, 2, 2).abs()
    found = model(Interval(centre, radius))
    points = centre + radius * (2.0 * torch.rand(5000, 2, 2, 2, dtype=torch.float64, generator=SEED) - 1.0)
    reached = torch.cat([model(points), model(corners(centre, radius))])
    assert (reached >= found.lower - 1e-12).all()
    assert (reached <= found.upper + 1e-12).all()
    assert (found.upper - found.lower <= 20.0 * (reached.amax(0) - reached.amin(0)) + 1e-12).all()
    point = model(Interval(centre, torch.zeros_like(radius)))
    torch.testing.assert_close(point.lower, model(centre))
    torch.testing.assert_close(point.upper, model(centre))


@pytest.mark.parametrize("name", networks())
def test_a_local_radius_is_the_limit_of_small_boxes(name) -> None:
    model = with_statistics(networks()[name].double())
    centre, radius = drawn(3, 2, 2, 2), drawn(3, 2, 2, 2).abs()
    found = model(Interval(centre, radius, local=True))
    torch.testing.assert_close(found.centre, model(centre))
    torch.testing.assert_close(found.radius, 1e6 * model(Interval(centre, 1e-6 * radius)).radius, rtol=1e-5, atol=1e-8)


def test_margins_are_the_largest_over_the_box_for_any_target() -> None:
    weight, bias, centre, radius = drawn(4, 3), drawn(4), drawn(1, 3), drawn(1, 3).abs()
    points = corners(centre, radius) @ weight.T + bias
    box = Interval(points.amin(0)[None] / 2 + points.amax(0)[None] / 2, (points.amax(0) - points.amin(0))[None] / 2)
    for q in (torch.eye(4, dtype=torch.float64)[:1], drawn(1, 4).softmax(1)):
        exact = linear_margins(centre, radius, weight, bias, q)
        torch.testing.assert_close(exact[0], (points - points @ q.T).amax(0))
        scores = corners(box.centre, box.radius)
        torch.testing.assert_close(margins(box.centre, box.radius, q)[0], (scores - scores @ q.T).amax(0))
        assert (exact <= box.margins(q) + 1e-12).all()
        through = nn.Linear(3, 4).double()
        through.weight.data, through.bias.data = weight, bias
        torch.testing.assert_close(through(Interval(centre, radius)).margins(q), exact)


def test_boxes_keep_to_valid_values() -> None:
    centre, radius = box_around(torch.tensor([0.05, 0.5]), 0.1, (0.0, 1.0))
    torch.testing.assert_close(centre - radius, torch.tensor([0.0, 0.4]))
    torch.testing.assert_close(centre + radius, torch.tensor([0.15, 0.6]))


def test_what_has_no_rule_is_refused() -> None:
    box = Interval(torch.zeros(2, 4), torch.ones(2, 4))
    with pytest.raises(TikhonError, match="no rule for bounds through torch's layer_norm"):
        nn.LayerNorm(4)(box)
    with pytest.raises(TikhonError, match="batch norm with running statistics"):
        nn.BatchNorm1d(4)(box)
    with pytest.raises(TikhonError, match="drops nothing"):
        nn.Dropout()(box)
    with pytest.raises(TikhonError, match="tensor's 'is_nested'"):
        nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)(Interval(torch.zeros(2, 3, 4), torch.ones(2, 3, 4)))
    with pytest.raises(TikhonError, match="both depend"):
        box * box
