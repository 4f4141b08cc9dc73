"""Hyperparameters and what they do: ranges, rates of every sample its own, and losses against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.core.losses import as_loss
from tikhon.core.target import Target
from tikhon.tuning.augmentations import TunedCutout, TunedMixUp, TunedNoise
from tikhon.tuning.base_loss import BaseLoss
from tikhon.tuning.effect_set import EffectSet
from tikhon.tuning.effects import TunedDecay, TunedDropout, TunedSmoothing
from tikhon.tuning.hyperparameters import Count, Rate, Scale

CPU = torch.device("cpu")


def acted(effect, inputs, labels=None, seed=0, **values):
    """Inputs and target after the effect, with these values of every sample."""
    labels = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else labels
    given = {name: torch.as_tensor(value).float() for name, value in values.items()}
    return effect.batch(inputs, Target.of(labels), given, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "one",
    [Rate(0.05), Rate(0.3, high=0.9), Rate(3.0, 2.0, 10.0), Scale(1e-4), Scale(7.0), Count(0, high=4), Count(5, 9, 2)],
)
def test_the_origin_maps_to_the_start_and_all_numbers_into_the_range(one):
    assert one.value(torch.tensor(one.origin)).item() == pytest.approx(one.start, rel=1e-5)
    values = one.value(torch.linspace(-200, 200, 4001, dtype=torch.float64))
    assert bool((values.diff() >= 0).all())
    low = getattr(one, "low", 0.0)
    assert low <= values.min() < values.max() <= getattr(one, "high", math.inf)


def test_a_count_takes_every_whole_number_of_its_range():
    values = Count(2, high=4, low=1).value(torch.linspace(-40, 40, 1001))
    assert values.unique().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rate(0.0),
        lambda: Rate(1.0),
        lambda: Rate(0.5, high=math.inf),
        lambda: Rate(math.nan),
        lambda: Scale(0.0),
        lambda: Scale(math.inf),
        lambda: Count(5, high=4),
        lambda: Count(1, high=1, low=1),
        lambda: Count(0.5, high=4),
    ],
)
def test_starts_outside_of_a_range_are_refused(make):
    with pytest.raises(TikhonError, match=r"starts (at|strictly)"):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TunedDropout(Scale(0.1)), r"rate must be in \[0, 1\]"),
        (lambda: TunedDropout(1.5), r"rate must be in \[0, 1\]"),
        (lambda: TunedNoise(-0.1), "scale must be"),
        (lambda: TunedNoise(Rate(0.5, low=-1.0)), "scale must be"),
        (lambda: TunedSmoothing(Rate(0.5, high=2.0)), "amount must be"),
        (lambda: TunedCutout(0.5, Rate(0.5)), "whole number"),
        (lambda: TunedCutout(0.5, Count(1, high=100)), "holes must be"),
        (lambda: TunedMixUp(float("nan")), "alpha must be"),
        (lambda: EffectSet([TunedNoise(0.1)], 0), "nothing to tune"),
        (lambda: EffectSet([], 0), "nothing to tune"),
        (lambda: EffectSet([TunedNoise(Scale(0.1)), TunedNoise(Scale(0.1))], 0), "share a name"),
        (
            lambda: EffectSet([TunedDropout(Rate(0.1), at="9")], 0).check(nn.Sequential(nn.Linear(2, 2))),
            "no module '9'",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, message):
    with pytest.raises(TikhonError, match=message):
        make()


def test_every_sample_is_dropped_at_its_own_rate():
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4000, 2))
    effect = TunedDropout(0.5, at="0")
    effect.place(model)
    x, rates = torch.ones(3, 40, 100), torch.tensor([0.0, 0.25, 0.8])
    acted(effect, x, rate=rates)
    found = model[0](x).flatten(1)
    torch.testing.assert_close((found == 0).float().mean(1), rates, rtol=0, atol=0.03)
    torch.testing.assert_close(found.amax(1), 1.0 / (1.0 - rates))
    acted(effect, x, rate=rates)
    assert torch.equal(model[0](x).flatten(1), found)  # the draw is the generator's
    effect.rest()
    assert torch.equal(model[0](x), x)
    model.eval()
    acted(effect, x, rate=rates)
    assert torch.equal(model[0](x), x)
    with pytest.raises(TikhonError, match="first axis"):
        model.train()[0](torch.ones(12, 100))
    effect.remove()
    assert torch.equal(model[0](x), x)


def test_noise_has_the_scale_of_its_sample_and_leaves_the_inputs_as_they_were():
    x = torch.zeros(3, 100, 100)
    found, _ = acted(TunedNoise(0.1), x, scale=[0.0, 0.5, 3.0])
    torch.testing.assert_close(found.flatten(1).std(1), torch.tensor([0.0, 0.5, 3.0]), rtol=0.03, atol=0)
    assert not x.any()
    with pytest.raises(TikhonError, match="floating-point"):
        acted(TunedNoise(0.1), x.long(), scale=[0.0, 0.5, 3.0])


def test_as_many_squares_of_such_a_size_are_cut_out():
    x = torch.ones(600, 1, 40, 40)
    side = torch.tensor([0.0, 0.1, 0.1, 0.1]).repeat(150)
    holes = torch.tensor([3.0, 0.0, 1.0, 3.0]).repeat(150)
    found, _ = acted(TunedCutout(0.1, Count(1, high=3)), x, side=side, holes=holes)
    gone = (found == 0).flatten(1).sum(1).float().reshape(150, 4)
    assert not gone[:, :2].any()
    assert gone[:, 2].max() <= 25  # a square of 4 pixels holds at most 5 x 5 centres
    inside = 1.0 - 0.1 / 4  # of a side, on average: half of it is lost where the centre lies on the border
    torch.testing.assert_close(gone.mean(0)[2], torch.tensor(16.0 * inside**2), rtol=0.05, atol=0)
    torch.testing.assert_close(gone.mean(0)[3], torch.tensor(48.0 * inside**2), rtol=0.08, atol=0)
    signals, _ = acted(TunedCutout(0.5), torch.ones(5, 2, 12), side=[0.5] * 5, holes=[1.0] * 5)
    assert bool(((signals[:, 0] == 0) == (signals[:, 1] == 0)).all())
    with pytest.raises(TikhonError, match="Reshape"):
        acted(TunedCutout(0.5), torch.ones(5, 12), side=[0.5] * 5, holes=[1.0] * 5)


def test_shares_of_mixtures_follow_the_alpha_of_the_sample():
    x = torch.arange(4000.0)[:, None]
    alpha = torch.tensor([0.0, 1e-4, 1.0, 1e4]).repeat(1000)
    found, target = acted(TunedMixUp(0.2), x, labels=torch.arange(4000), alpha=alpha)
    own, other = target.parts
    torch.testing.assert_close(found[:, 0], own.share * own.value + other.share * other.value)
    shares = own.share.reshape(1000, 4)
    assert bool((shares[:, 0] == 1).all())
    assert bool((shares[:, 1] * (1 - shares[:, 1]) < 1e-3).float().mean() > 0.99)
    assert shares[:, 1].mean().item() == pytest.approx(0.5, abs=0.06)
    torch.testing.assert_close(shares[:, 2].std(), torch.tensor(12.0**-0.5), rtol=0.05, atol=0)
    torch.testing.assert_close(shares[:, 3], torch.full((1000,), 0.5), rtol=0, atol=0.02)


def test_labels_are_smoothed_by_the_amount_of_the_sample():
    output, labels = torch.randn(4, 5), torch.tensor([0, 3, 4, 1])
    amounts = torch.tensor([0.0, 0.1, 0.5, 1.0])
    aim = TunedSmoothing(0.1).targets(output, Target.of(labels), as_loss(F.cross_entropy)[0], {"amount": amounts})
    found = BaseLoss(F.cross_entropy).changed(output, aim, 0.0)
    each = [
        F.cross_entropy(output[i], labels[i], label_smoothing=float(amounts[i])) for i in range(4)
    ]  # fmt: skip
    torch.testing.assert_close(found, torch.stack(each).mean())
    with pytest.raises(TikhonError, match="cross-entropy"):
        TunedSmoothing(0.1).targets(output, Target.of(output), as_loss(F.mse_loss)[0], {"amount": amounts})


def test_smoothing_of_the_base_loss_and_penalties_are_added():
    output, labels = torch.randn(4, 5), torch.tensor([0, 3, 4, 1])
    found = BaseLoss(nn.CrossEntropyLoss(label_smoothing=0.2)).changed(output, Target.of(labels), torch.arange(4.0))
    torch.testing.assert_close(found, F.cross_entropy(output, labels, label_smoothing=0.2) + 1.5)


def test_values_are_dealt_out_by_name_and_numbers_stay():
    effects = EffectSet([TunedCutout(Rate(0.25), holes=2), TunedDecay(Scale(0.1))], 0)
    assert list(effects.tuned) == ["cutout/side", "decay/strength"]
    raw = torch.tensor([[0.0, 1.0], [100.0, 0.0]])
    values = effects.values(raw)
    torch.testing.assert_close(values["cutout"]["side"], torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(values["cutout"]["holes"], torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(values["decay"]["strength"], torch.tensor([math.e, 1.0]))
    log = effects.log(raw[0], torch.tensor([0.5, 0.25]))
    assert log["cutout/side"] == pytest.approx(0.5)
    assert log["decay/strength/spread"] == pytest.approx(0.25)


def test_draws_of_one_effect_do_not_move_those_of_another():
    alone = EffectSet([TunedNoise(Scale(0.1))], 0)
    both = EffectSet([TunedDropout(Rate(0.1), at="0"), TunedNoise(Scale(0.1))], 0)
    x, y = torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)

    def noisy(effects, number=4):
        with effects.batch(x, Target.of(y), effects.values(torch.zeros(5, len(effects.tuned))), number) as (inputs, _):
            return inputs

    assert torch.equal(noisy(alone), noisy(both))
    assert not torch.equal(noisy(alone), noisy(alone, 5))
    other = EffectSet([TunedNoise(Scale(0.1))], 1)
    assert not torch.equal(noisy(alone), noisy(other))
