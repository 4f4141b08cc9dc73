"""Early stopping: it ends in time, and puts model and recipe back to the best epoch, whatever the methods keep."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import tikhon
from tikhon import EarlyStopping, Recipe, TikhonError


def attached(*methods, seed=0):
    torch.manual_seed(seed)
    recipe = Recipe(*methods)
    model = recipe.prepare(nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)), samples=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    recipe.attach(optimizer)
    return recipe, model, optimizer


def train_epoch(recipe, optimizer):
    inputs, labels = torch.arange(24.0).sin().reshape(8, 3), torch.arange(8) % 2
    optimizer.zero_grad()
    recipe.loss(inputs, labels, index=torch.arange(8)).backward()
    optimizer.step()
    recipe.end_epoch()


def run(scores, *methods, **options):
    """The states after every epoch until it stops, and the rule that stopped."""
    recipe, model, optimizer = attached(*methods)
    stopping = EarlyStopping(recipe, **options)
    states = []
    for score in scores:
        train_epoch(recipe, optimizer)
        states.append(copy.deepcopy((model.state_dict(), recipe.state_dict())))
        if stopping.update(score):
            break
    return recipe, model, stopping, states


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize(
    ("scores", "options", "epochs", "best"),
    [
        ([1, 3, 2, 1, 5, 6], {"patience": 2}, 4, 1),
        ([1, 3, 2, 1, 5, 6], {"patience": 3}, 6, 5),
        ([1, 2, 2, 2, 9], {"patience": 2}, 4, 1),  # as good is not better
        ([1.0, 1.05, 1.09, 1.1, 1.2], {"patience": 3, "margin": 0.1}, 4, 0),
        ([float("nan"), float("nan"), 1.0], {"patience": 2}, 2, None),
        ([float("nan"), 0.0, -1.0, -2.0], {"patience": 2}, 4, 1),
    ],
)
def test_it_stops_when_no_score_was_better_for_as_long_as_patience_says(scores, options, epochs, best):
    _, _, stopping, states = run(scores, **options)
    assert len(states) == stopping.epoch == epochs
    assert stopping.best_epoch == best
    assert stopping.best_score == (float("-inf") if best is None else scores[best])


def test_model_and_recipe_return_together():
    recipe, model, stopping, states = run([1, 3, 2, 1], tikhon.EMA(0.5), tikhon.ELR(), patience=2)
    assert not equal(model.state_dict(), states[1][0])
    stopping.restore()
    assert equal(model.state_dict(), states[1][0])  # statistics of batch norm too
    assert equal(recipe.state_dict(), states[1][1])
    assert recipe.epoch == 2
    average = states[1][1]["methods"]["ema"]
    exported = recipe.export().state_dict()
    assert any(torch.equal(exported["0.weight"], one) for one in _tensors(average))  # the average of that epoch


def _tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for one in inner for tensor in _tensors(one)]


def test_without_a_number_restoring_changes_nothing():
    _, model, stopping, states = run([float("nan")] * 3, patience=5)
    stopping.restore()
    assert equal(model.state_dict(), states[-1][0])


def test_its_state_goes_on_in_a_new_process():
    scores = [1, 3, 2, 2, 2, 2]
    _, _, whole, _ = run(scores, tikhon.EMA(0.5), patience=4)
    recipe, model, half, _ = run(scores[:3], tikhon.EMA(0.5), patience=4)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = EarlyStopping(recipe, patience=4)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert [resumed.update(score) for score in scores[3:]] == [False, False, True]
    assert (resumed.best_epoch, resumed.best_score) == (whole.best_epoch, whole.best_score)
    resumed.restore()
    restored = copy.deepcopy(model.state_dict())
    half.restore()
    assert equal(restored, model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be a positive integer"),
        ({"patience": 2.5}, "patience must be a positive integer"),
        ({"margin": -0.1}, "margin must be finite and at least 0"),
        ({"margin": float("nan")}, "margin must be finite and at least 0"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(TikhonError, match=message):
        EarlyStopping(attached()[0], **options)


def test_a_recipe_that_is_not_prepared_is_refused():
    with pytest.raises(TikhonError, match="prepare"):
        EarlyStopping(Recipe())


def test_fit_ends_where_it_says_so_and_stays_ended(tmp_path):
    data = torch.arange(24.0).sin().reshape(8, 3), torch.arange(8) % 2
    scores, seen = [1.0, 3.0, 2.0, 1.0, 9.0], []

    def once():
        torch.manual_seed(0)
        recipe, waits = Recipe(), []

        def ends(epoch, history):
            waits.append(EarlyStopping(recipe, patience=2)) if not waits else None
            return waits[0].update(history.metrics["score"][-1])

        def score(model):
            seen.append(model)
            return scores[len(seen) - 1]

        return tikhon.fit(
            nn.Linear(3, 2),
            recipe,
            data,
            epochs=5,
            metrics={"score": score},
            keep_best="score",
            on_epoch=ends,
            checkpoint=tmp_path,
        )

    model, history = once()
    assert history.metrics["score"] == scores[:4]
    assert history.best_epoch == 1
    again, the_same = once()  # finished: nothing is trained, and the best epoch is returned
    assert len(seen) == 4
    assert the_same == history
    assert torch.equal(again.weight, model.weight)
