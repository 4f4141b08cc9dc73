"""The mean of a mixed, smoothed target at once: the mean of its rows, whatever the class loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon import ClassLoss, LabelSmoothing, Recipe, Target
from tikhon.core.losses import FEW_SCORES, weighted_losses

from .common import ready, rows


def squared(log_p: Tensor) -> Tensor:
    return (1.0 - log_p.exp()).square()


def halved(scores: Tensor) -> Tensor:
    return F.log_softmax(0.5 * scores, 1)


LOSSES = [ClassLoss(), ClassLoss(per_class=squared), ClassLoss(log_probabilities=halved)]


@pytest.mark.parametrize("loss", LOSSES, ids=["cross-entropy", "another loss", "other probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, torch.tensor(0.3, dtype=torch.float64)], ids=["0", "0.3", "a tensor"])
@pytest.mark.parametrize("shares", [(), (0.75,), (0.75, 0.4)], ids=["alone", "mixed", "mixed twice"])
@pytest.mark.parametrize("kind", ["labels", "positions", "probabilities"])
@pytest.mark.parametrize("classes", [4, 1 + FEW_SCORES // 6], ids=["few scores", "many"])
def test_it_is_the_mean_of_the_rows(
    loss: ClassLoss, smoothing: float | Tensor, shares: tuple[float, ...], kind: str, classes: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    positions = (2,) if kind == "positions" else ()
    scores = torch.randn(6, classes, *positions, dtype=torch.float64, generator=generator).requires_grad_()
    value = torch.randint(classes, (6, *positions), generator=generator)
    target = Target.of(torch.randn(6, classes, generator=generator).softmax(1) if kind == "probabilities" else value)
    for share in shares:
        target = target.mix(torch.randperm(6, generator=generator), share)
    target = replace(target, smoothing=smoothing)
    losses, mass = weighted_losses(loss, scores, target)
    expected = losses.sum() / (len(losses) if mass is None else mass.sum())
    found = loss.mean_of(scores, target)
    torch.testing.assert_close(found, expected, check_dtype=False)
    gradients = (torch.autograd.grad(one, scores)[0] for one in (found, expected))
    torch.testing.assert_close(*gradients)


def test_a_class_that_is_ruled_out_is_not_read_unless_smoothing_asks_for_it() -> None:
    scores = torch.tensor([[0.0, 0.0, -torch.inf], [1.0, 0.0, -torch.inf]])
    target = Target.of(torch.tensor([0, 1])).mix(torch.tensor([1, 0]), 0.7)
    assert ClassLoss().mean_of(scores, target).isfinite()
    assert ClassLoss().mean_of(scores, target.smooth(0.1)) == torch.inf


@pytest.mark.parametrize("way", ["weights", "a share each", "total"])
def test_what_is_not_alike_is_left_to_the_rows(way: str) -> None:
    target = Target.of(torch.tensor([0, 1, 2]))
    assert target.alike
    assert target.mix(torch.tensor([1, 2, 0]), 0.3).smooth(0.1).alike
    if way == "weights":
        assert not target.weighted(torch.ones(3)).alike
    elif way == "a share each":
        assert not target.mix(torch.tensor([1, 2, 0]), torch.full((3,), 0.5)).alike
    else:
        recipe = Recipe(LabelSmoothing(0.2))
        model, _ = ready(recipe)
        x, y = rows()
        expected = F.cross_entropy(model(x), y, reduction="sum", label_smoothing=0.2) / 40.0
        torch.testing.assert_close(recipe.loss(x, y, total=40.0), expected)
