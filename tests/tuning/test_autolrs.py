"""AutoLRS: the order of its steps, what it puts back, resuming anywhere, candidates that are given up, wrong input."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn

import tikhon
from tikhon import AutoLRS, Recipe, TikhonError
from tikhon.core.errors import Diverged
from tikhon.math.exponential import forecast
from tikhon.tuning.trial import Trial

LENGTHS = {"low": 1e-3, "high": 1.0, "stage": 40, "longest": 80, "candidates": 4}


def states(*objects):
    return copy.deepcopy([one.state_dict() for one in objects])


def same(one, other):
    """To the bit."""
    try:
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    except AssertionError:
        return False
    return True


class Training:
    """A loop with a recipe whose methods remember, average and draw; batches depend on the number of the step."""

    def __init__(self, **settings):
        torch.manual_seed(0)
        self.recipe = Recipe(tikhon.ELR(), tikhon.EMA(0.9), tikhon.MixUp(), seed=3)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        self.model = self.recipe.prepare(model, samples=32)
        groups = [{"params": self.model[0].parameters(), "lr": 0.1}, {"params": self.model[1:].parameters()}]
        self.optimizer = torch.optim.SGD(groups, lr=0.4, momentum=0.9)
        self.recipe.attach(self.optimizer, steps=400)
        self.number = 0
        self.asked = []
        settings = {**LENGTHS, "validation": self.validation, **settings}
        self.tuner = AutoLRS(self.model, self.optimizer, self.recipe, **settings)

    def validation(self):
        self.asked.append(self.number)
        x, y, _ = self.batch(10_000)
        with torch.no_grad():
            return float(nn.functional.cross_entropy(self.model(x), y))

    def batch(self, number):
        index = torch.randperm(32, generator=torch.Generator().manual_seed(number))[:16]
        rows = torch.arange(128.0).reshape(32, 4).sin()[index]
        return rows, index % 3, index

    def step(self):
        x, y, index = self.batch(self.number)
        self.number += 1
        self.optimizer.zero_grad()
        loss = self.recipe.loss(x, y, index=index)
        loss.backward()
        self.optimizer.step()
        self.tuner.step(loss)

    def objects(self):
        return self.model, self.optimizer, self.recipe, self.tuner


def test_every_stage_is_preceded_by_trials_of_a_tenth_of_it_and_lengths_double() -> None:
    training, phases = Training(), []
    while training.tuner.trained < 40 + 80 + 80:
        phases.append((training.tuner.exploring, training.optimizer.param_groups[1]["lr"]))
        training.step()
    explored = [i for i, (exploring, _) in enumerate(phases) if exploring]
    assert explored == [*range(16), *range(56, 56 + 32), *range(168, 168 + 32)]  # 4 trials of 4, 8 and 8 steps
    assert [stage.steps for stage in training.tuner.stages] == [40, 80, 80]
    for stage, start, trial in zip(training.tuner.stages, (0, 56, 168), (4, 8, 8), strict=True):
        assert [phases[start + k * trial][1] for k in range(4)] == stage.rates
        assert len({rate for _, rate in phases[start + 4 * trial : start + 4 * trial + stage.steps]}) == 1
        assert phases[start + 4 * trial][1] == stage.chosen
        assert stage.chosen in stage.rates
        assert stage.rates[0] == pytest.approx(math.sqrt(1e-3))
        assert all(1e-3 <= rate <= 1.0 for rate in stage.rates)


def test_validation_is_asked_for_once_a_stage_has_been_the_longest() -> None:
    training = Training()
    while len(training.tuner.stages) < 3:
        training.step()
    assert training.asked == list(range(169, 201))  # in trials shorter than 16 steps, after each of them
    assert all(value == value for value in training.tuner.stages[-1].forecasts)


def test_the_forecasts_are_those_of_the_losses_that_were_told() -> None:
    training, losses = Training(validation=None), []
    original = training.tuner.step
    training.tuner.step = lambda loss: (losses.append(float(loss.detach())), original(loss))
    while not training.tuner.stages:
        training.step()
    for k, expected in enumerate(training.tuner.stages[0].forecasts):
        series = torch.tensor(losses[4 * k : 4 * k + 4], dtype=torch.float64)
        floor = 0.0 if series.min() >= 0 else -math.inf
        assert expected == float(forecast(torch.arange(4), series, 40, 0, 10, floor))


def test_after_every_trial_all_is_to_the_bit_as_it_was() -> None:
    training, ends = Training(), 0
    start = states(*training.objects()[:3])
    while len(training.tuner.stages) < 2:
        was_exploring, tried = training.tuner.exploring, len(training.tuner.state_dict()["now"]["places"])
        training.step()
        now = states(*training.objects()[:3])
        if not was_exploring:
            start = now
        elif len(training.tuner.state_dict()["now"]["places"]) != tried:
            ends += 1
            for state in (now, start):
                for group in state[1]["param_groups"]:
                    group["lr"] = 0.0  # the next candidate's
            assert same(now, start)
    assert ends == 2 * LENGTHS["candidates"]
    assert training.recipe.step == training.tuner.trained == 40


def test_rates_keep_their_ratio() -> None:
    training = Training()
    for _ in range(60):
        slow, fast = (group["lr"] for group in training.optimizer.param_groups)
        assert fast == training.tuner.rate
        assert slow == pytest.approx(0.25 * fast, rel=1e-12)
        training.step()


@pytest.mark.parametrize("number", [0, 6, 15, 30, 60, 180])  # within trials, at their end, within stages
def test_training_goes_on_to_the_bit_in_a_new_process(number) -> None:
    whole = Training()
    for _ in range(number):
        whole.step()
    file = io.BytesIO()
    torch.save([one.state_dict() for one in whole.objects()], file)
    file.seek(0)
    resumed = Training()
    for one, state in zip(resumed.objects(), torch.load(file, weights_only=True), strict=True):
        one.load_state_dict(state)
    resumed.number = whole.number
    for _ in range(60):
        whole.step()
        resumed.step()
    assert same(states(*whole.objects()), states(*resumed.objects()))
    assert whole.tuner.stages == resumed.tuner.stages


def test_restoring_puts_back_a_trial_and_begins_it_anew() -> None:
    training = Training()
    start = states(*training.objects()[:3])
    for _ in range(6):
        training.step()
    training.tuner.restore()
    now = states(*training.objects()[:3])
    for group, rate in zip(now[1]["param_groups"], (0.25, 1.0), strict=True):
        assert group.pop("lr") == pytest.approx(rate * training.tuner.rate)
    for group in start[1]["param_groups"]:
        group.pop("lr")
    assert same(now, start)
    for _ in range(4):
        assert len(training.tuner.state_dict()["now"]["places"]) == 1
        training.step()
    assert len(training.tuner.state_dict()["now"]["places"]) == 2
    for _ in range(10):
        training.step()
    within = states(*training.objects())
    training.tuner.restore()
    assert same(states(*training.objects()), within)


def quadratic(**settings):
    """f(w) = w^2 / 2, whose rate of 2 or more diverges."""
    w = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        w.weight.fill_(1.0)
    optimizer = torch.optim.SGD(w.parameters(), lr=1.0)
    tuner = AutoLRS(w, optimizer, **{"low": 1e-2, "high": 1e4, "stage": 100, "longest": 100, **settings})
    return w, optimizer, tuner


def train_quadratic(w, optimizer, tuner, stages):
    steps = 0
    while len(tuner.stages) < stages:
        optimizer.zero_grad()
        loss = 0.5 * w.weight.square().sum()
        loss.backward()
        optimizer.step()
        tuner.step(loss)
        steps += 1
    return steps


def test_candidates_that_diverge_are_given_up_at_once_and_never_chosen() -> None:
    w, optimizer, tuner = quadratic()
    steps = train_quadratic(w, optimizer, tuner, 1)
    stage = tuner.stages[0]
    given_up = [value == math.inf for value in stage.forecasts]
    assert given_up == [abs(1 - rate) ** 18 > 10 for rate in stage.rates]  # the tenth loss is after nine steps
    assert 2 <= sum(given_up) <= 8
    assert steps < 10 * 10
    assert stage.chosen < 2.0
    assert w.weight.item() == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, 23.1])
def test_a_loss_that_is_hopeless_ends_its_candidate(bad) -> None:
    trial = Trial(100, first=2.3)
    assert trial.add(2.0, None) is None
    assert trial.add(bad, None) == math.inf
    assert Trial(100, first=2.3).add(22.9, None) is None
    assert trial.add(torch.tensor(1.0), None) is None


def test_a_floor_is_known_only_of_losses_that_were_not_negative() -> None:
    falling = [3.0 * math.exp(-0.15 * k) - 0.75 for k in range(10)]
    above, below = Trial(100, first=2.25), Trial(100, first=0.25)
    assert [above.add(loss, None) for loss in falling][-1] >= 0.0
    assert [below.add(loss - 2.0, None) for loss in falling][-1] == pytest.approx(-2.75, abs=1e-4)
    negative = Trial(100, first=-5.0)
    assert [negative.add(loss, None) for loss in (-4.0, 39.0, 41.0)] == [None, None, math.inf]


def test_where_all_are_given_up_the_lowest_rate_is_taken() -> None:
    w, optimizer, tuner = quadratic(low=1e2, candidates=3)
    train_quadratic(w, optimizer, tuner, 1)
    assert tuner.stages[0].forecasts == [math.inf] * 3
    assert tuner.stages[0].chosen == min(tuner.stages[0].rates)


def test_after_a_jump_the_last_validation_loss_counts() -> None:
    values = iter([1.0, 2.5, 2.0, 1.5])
    trial = Trial(40, first=2.3)
    found = [trial.add(1.0, lambda: next(values)) for _ in range(4)]
    assert found == [None, None, None, 1.5]
    values = iter([1.0, math.nan, 2.0, 1.5])
    trial = Trial(40, first=2.3)
    assert [trial.add(1.0, lambda: next(values)) for _ in range(4)][-1] == math.inf


def test_validation_losses_are_placed_at_the_steps_after_which_they_were_taken() -> None:
    curve = lambda t: 0.3 + 1.5 * math.exp(-0.004 * t)  # noqa: E731
    trial, step = Trial(3200, first=3.0), 0
    while True:
        step += 1
        expected = trial.add(1.0, lambda step=step: curve(step))
        if expected is not None:
            break
    assert step == 320
    assert len(trial.validations) == 16
    assert expected == pytest.approx(curve(3200), rel=1e-6)


def test_the_best_rate_of_a_noisy_quadratic_is_found() -> None:
    w, optimizer, tuner = quadratic(low=1e-4, high=1e2)
    train_quadratic(w, optimizer, tuner, 1)
    assert 0.02 < tuner.stages[0].chosen < 2.0  # between these the loss is gone after 100 steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 0.0}, "0 < low < high"),
        ({"low": 2.0, "high": 1.0}, "0 < low < high"),
        ({"stage": 29}, "30 <= stage"),
        ({"stage": 90}, "stage=90, longest=80"),
        ({"candidates": 0}, "candidates=0"),
        ({"kappa": float("nan")}, "kappa=nan"),
    ],
)
def test_wrong_settings_are_refused(settings, message) -> None:
    with pytest.raises(TikhonError, match=message):
        Training(**settings)


def test_wrong_objects_states_and_losses_are_refused() -> None:
    training = Training()
    model, optimizer, recipe, tuner = training.objects()
    with pytest.raises(TikhonError, match="belong to no model"):
        AutoLRS(optimizer, recipe, **LENGTHS)
    with pytest.raises(TikhonError, match="an optimizer with a positive"):
        AutoLRS(model, recipe, **LENGTHS)
    with pytest.raises(TikhonError, match="no state_dict"):
        AutoLRS(model, optimizer, len, **LENGTHS)
    with pytest.raises(TikhonError, match="not the state of an AutoLRS"):
        tuner.load_state_dict(AutoLRS(model, optimizer, **LENGTHS).state_dict())
    with pytest.raises(TikhonError, match="not the state of an AutoLRS"):
        tuner.load_state_dict({"taken": []})
    with pytest.raises(Diverged, match="nan before any rate"):
        tuner.step(float("nan"))
    assert tuner.state_dict()["now"]["trial"]["losses"] == []
