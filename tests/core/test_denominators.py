"""Denominators: what a sample counts. The numbers are torch's own, or sums written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon import LabelSmoothing, Method, MixUp, Recipe, Target, Term

from .common import CARD, mlp, ready, rows, weights


class Permute(Method):
    """Mixes with a known permutation and share, so that expectations can be written out; inputs stay as they are."""

    card = CARD
    slots = {"batch": "mix"}

    def __init__(self, share: float | Tensor = 0.75, times: int = 1) -> None:
        super().__init__()
        self.share, self.times = share, times

    def batch(self, inputs: Any, target: Target, step: Any) -> Any:
        for _ in range(self.times):
            target = target.mix(torch.arange(len(target)).roll(1), self.share)
        return inputs, target


class Nothing(Method):
    """Acts in `targets` and so takes the way through unreduced losses."""

    card = CARD
    slots = {"targets": "distil"}

    def targets(self, output: Tensor, target: Target, step: Any) -> Target:
        return target


CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weight", [None, CLASS_WEIGHTS], ids=["unweighted", "class weights"])
@pytest.mark.parametrize("ignore", [-100, 1, 255, None])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)], ids=["flat", "sequence", "image"])
@pytest.mark.parametrize("way", ["fused", "unreduced", "smoothed by the method"])
def test_cross_entropy_equals_torchs(
    way: str, shape: tuple[int, ...], ignore: int | None, weight: Tensor | None, smoothing: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 3, *shape, generator=generator, dtype=torch.float64)
    y = torch.arange(6 * math.prod(shape)).reshape(6, *shape) % 3
    if ignore is None:
        ignore = -100  # and no position has it
    else:
        y.view(-1)[::4] = ignore
    criterion = nn.CrossEntropyLoss(weight=weight, ignore_index=ignore, label_smoothing=smoothing)
    expected = criterion(scores, y)
    if way == "smoothed by the method":
        plain = nn.CrossEntropyLoss(weight=weight, ignore_index=ignore)
        recipe = Recipe(LabelSmoothing(smoothing), base=plain)
    else:
        recipe = Recipe(*[Nothing()] * (way == "unreduced"), base=criterion)
    ready(recipe, Scores(scores), samples=None)
    sample_weight = torch.ones(6, dtype=torch.float64) if way == "unreduced" else None
    torch.testing.assert_close(recipe.loss(torch.zeros(6), y, weight=sample_weight), expected)


class Scores(nn.Module):
    """Gives the same scores whatever comes in."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.scores * 1.0


@pytest.mark.parametrize("way", [(), (Nothing,)], ids=["fused", "unreduced"])
def test_everything_ignored_gives_zero_and_no_gradient(way: tuple[type[Method], ...]) -> None:
    recipe = Recipe(*(method() for method in way))
    model, _ = ready(recipe, Scores(torch.randn(4, 3)))
    loss = recipe.loss(torch.zeros(4), torch.full((4,), -100))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert not model.scores.grad.any()


def test_a_batch_of_classes_that_weigh_nothing_gives_zero() -> None:
    recipe = Recipe(Nothing(), base=nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, label_smoothing=0.3))
    ready(recipe)
    x, y = rows()
    assert float(recipe.loss(x, torch.full_like(y, 2)).detach()) == 0.0


@pytest.mark.parametrize("shape", [(), (5,)], ids=["flat", "sequence"])
@pytest.mark.parametrize("unit_weights", [False, True])
def test_soft_targets_equal_torchs(unit_weights: bool, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    scores, logits = torch.randn(2, 6, 3, *shape, generator=generator, dtype=torch.float64)
    q = logits.softmax(1)
    recipe = Recipe()
    ready(recipe, Scores(scores))
    weight = torch.ones(6, dtype=torch.float64) if unit_weights else None
    torch.testing.assert_close(recipe.loss(torch.zeros(6), q, weight=weight), F.cross_entropy(scores, q))


def test_sample_weights_are_a_weighted_mean() -> None:
    recipe = Recipe()
    model, _ = ready(recipe)
    x, y = rows()
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    losses = F.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(recipe.loss(x, y, weight=weight), (weight * losses).sum() / weight.sum())


def test_weights_and_class_weights_multiply() -> None:
    recipe = Recipe(base=nn.CrossEntropyLoss(weight=CLASS_WEIGHTS))
    model, _ = ready(recipe)
    x, y = rows()
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    both = weight * CLASS_WEIGHTS[y]
    losses = F.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(recipe.loss(x, y, weight=weight), (both * losses).sum() / both.sum())


@pytest.mark.parametrize("weight", [torch.zeros(8), None])
@pytest.mark.parametrize("total", [None, 0, 0.0, torch.tensor(0)])
def test_no_mass_is_no_loss(weight: Tensor | None, total: Any) -> None:
    x, y = rows()
    y = torch.full_like(y, -100) if weight is None else y
    recipe = Recipe()
    ready(recipe)
    loss = recipe.loss(x, y, weight=weight, total=total)
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("kind", [float, int, torch.tensor])
def test_total_makes_micro_batches_of_any_mass_add_up(kind: Any) -> None:
    class Bonus(Method):
        card = CARD

        def terms(self, output: Tensor, target: Any, step: Any) -> Any:
            return {"each": Term(output.square().sum(1), 0.5), "all": Term(torch.tensor(3.0), 2.0, per_sample=False)}

    x, y = rows()
    y[2] = y[5] = y[6] = -100
    whole = Recipe(Bonus())
    model, _ = ready(whole)
    loss = whole.loss(x, y)
    loss.backward()
    split = Recipe(Bonus())
    other, _ = ready(split)
    losses = []
    for part in (slice(0, 3), slice(3, 8)):
        losses.append(split.loss(x[part], y[part], total=kind(5)))
        losses[-1].backward()
    torch.testing.assert_close(sum(losses), loss)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    kept = y != -100
    each = F.cross_entropy(model(x), y, reduction="sum") + 0.5 * model(x)[kept].square().sum()
    torch.testing.assert_close(loss, each / 5 + 6.0)


# Mixed targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.75, torch.linspace(0, 1, 8).double()], ids=["one share", "a share each"])
def test_a_mixed_target_is_the_mix_of_the_losses(share: float | Tensor) -> None:
    recipe = Recipe(Permute(share))
    model, _ = ready(recipe)
    x, y = rows()
    own = F.cross_entropy(model(x), y, reduction="none")
    partner = F.cross_entropy(model(x), y.roll(1), reduction="none")
    torch.testing.assert_close(recipe.loss(x, y), (share * own + (1 - share) * partner).mean())


@pytest.mark.parametrize(
    ("base", "each"),
    [
        (F.mse_loss, lambda o, t: (o - t).square().mean(1)),
        (nn.L1Loss(), lambda o, t: (o - t).abs().mean(1)),
        (nn.HuberLoss(delta=0.1), lambda o, t: F.huber_loss(o, t, delta=0.1, reduction="none").mean(1)),
        (lambda o, t: ((o - t) ** 4).sum(1), lambda o, t: ((o - t) ** 4).sum(1)),
    ],
    ids=["mse", "l1", "huber", "custom"],
)
def test_regression_under_mixing_is_the_mix_of_the_losses(base: Any, each: Any) -> None:
    x, _ = rows()
    t = rows(seed=1)[0]
    recipe = Recipe(Permute(0.75), base=base)
    model, _ = ready(recipe)
    expected = 0.75 * each(model(x), t) + 0.25 * each(model(x), t.roll(1, 0))
    torch.testing.assert_close(recipe.loss(x, t), expected.mean())
    mixed_targets = each(model(x), 0.75 * t + 0.25 * t.roll(1, 0))
    assert not torch.allclose(expected, mixed_targets)  # these losses are not linear in the target


@pytest.mark.parametrize("base", [F.mse_loss, nn.L1Loss(), lambda o, t: (o - t).square().sum(1)])
def test_mixup_trains_regression(base: Any) -> None:
    x, _ = rows()
    recipe = Recipe(MixUp(), base=base)
    model, _ = ready(recipe)
    before = weights(model)
    recipe.loss(x, rows(seed=1)[0]).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_weights_and_ignored_labels_follow_their_samples_through_mixing() -> None:
    x, y = rows()
    y[0] = y[3] = -100
    weight = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    recipe = Recipe(Permute(0.75))
    model, _ = ready(recipe)
    own, partner = (F.cross_entropy(model(x), label, reduction="none") for label in (y, y.roll(1)))
    mass_own, mass_partner = 0.75 * weight * (y != -100), 0.25 * (weight * (y != -100)).roll(1)
    expected = (mass_own * own + mass_partner * partner).sum() / (mass_own + mass_partner).sum()
    torch.testing.assert_close(recipe.loss(x, y, weight=weight), expected)


def test_a_mix_of_mixes_and_smoothing() -> None:
    x, y = rows()
    recipe = Recipe(Permute(0.75, times=2), LabelSmoothing(0.2))
    model, _ = ready(recipe)
    hot = F.one_hot(y, 3).double()
    once = 0.75 * hot + 0.25 * hot.roll(1, 0)
    twice = 0.75 * once + 0.25 * once.roll(1, 0)
    torch.testing.assert_close(recipe.loss(x, y), F.cross_entropy(model(x), 0.8 * twice + 0.2 / 3))


def test_custom_losses_take_targets_that_are_no_tensors() -> None:
    def base(output: Tensor, target: dict[str, Tensor]) -> Tensor:
        return (output - target["centre"]).square().sum(1)

    x, t = rows()[0], {"centre": rows(seed=1)[0]}
    recipe = Recipe(base=base)
    model, _ = ready(recipe, mlp())
    torch.testing.assert_close(recipe.loss(x, t), base(model(x), t).mean())
    weight = torch.linspace(0, 1, 8, dtype=torch.float64)
    torch.testing.assert_close(recipe.loss(x, t, weight=weight), (weight * base(model(x), t)).sum() / weight.sum())
