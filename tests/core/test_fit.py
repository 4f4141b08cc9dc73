"""fit: the small loop restores the best epoch, is a function of its seeds, and refuses what it cannot train."""

from __future__ import annotations

import copy
import functools
import operator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tikhon
from tikhon import EMA, Recipe, TikhonError, fit

from .common import mlp, rows, same, weights

X, Y = rows(10)


def scripted(scores: list[float], seen: list[list[Tensor]]) -> Any:
    """A metric that gives these scores, epoch by epoch, and keeps the weights that it was shown."""

    def metric(model: nn.Module) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(weights(model))
        return scores[len(seen) - 1]

    return metric


@pytest.mark.parametrize("methods", [(), (lambda: EMA(0.5),)], ids=["plain", "averaged"])
@pytest.mark.parametrize(
    ("scores", "best"),
    [([1.0, 3.0, 2.0, 3.0], 1), ([0.0, 1.0, 2.0, 3.0], 3), ([float("nan"), 1.0, 2.0, 1.5], 2), ([5.0, 1, 1, 1], 0)],
)
def test_keep_best_returns_the_weights_of_the_best_epoch(methods: Any, scores: list[float], best: int) -> None:
    seen: list[list[Tensor]] = []
    recipe = Recipe(*(make() for make in methods))
    model, history = fit(
        mlp(), recipe, (X, Y), epochs=4, batch_size=4, metrics={"score": scripted(scores, seen)}, keep_best="score"
    )
    assert history.best_epoch == best
    assert same(weights(model), seen[best])  # what the metric saw: with EMA the average of that epoch
    assert all(not same(seen[best], other) for epoch, other in enumerate(seen) if epoch != best)
    assert recipe.step == 3 * (best + 1)


def test_without_keep_best_the_last_epoch_is_returned() -> None:
    seen: list[list[Tensor]] = []
    model, history = fit(mlp(), Recipe(), (X, Y), epochs=2, metrics={"score": scripted([2.0, 1.0], seen)})
    assert history.best_epoch is None
    assert history.metrics == {"score": [2.0, 1.0]}
    assert same(weights(model), seen[1])


def test_a_score_that_is_never_a_number_keeps_the_last_epoch() -> None:
    seen: list[list[Tensor]] = []
    nan = float("nan")
    model, history = fit(
        mlp(), Recipe(), (X, Y), epochs=2, metrics={"score": scripted([nan, nan], seen)}, keep_best="score"
    )
    assert history.best_epoch is None
    assert same(weights(model), seen[1])


def dropping() -> nn.Module:
    model = mlp()
    return nn.Sequential(model[0], nn.Dropout(0.5), model[2])


def run(seed: int = 0, recipe_seed: int = 0, disturb: int = 0) -> list[Tensor]:
    torch.manual_seed(disturb)
    recipe = Recipe(tikhon.MixUp(), tikhon.ELR(), seed=recipe_seed)
    return weights(fit(dropping(), recipe, (X, Y), epochs=2, batch_size=4, seed=seed)[0])


def test_training_is_a_function_of_its_two_seeds() -> None:
    assert same(run(), run(disturb=9))
    assert not same(run(), run(seed=1))
    assert not same(run(), run(recipe_seed=1))


def test_the_global_generator_is_put_back() -> None:
    one, other = dropping(), dropping()
    before = torch.get_rng_state()
    fit(one, Recipe(), (X, Y), epochs=1)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(TikhonError):
        fit(other, Recipe(), (X * float("nan"), Y), epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_each_epoch_sees_every_sample_once_in_an_order_of_its_own() -> None:
    from tikhon.core.fit import batches

    epochs = [[index.tolist() for index, _, _ in batches(X, Y, 4, 0, epoch)] for epoch in (0, 1, 0)]
    for index, x, y in batches(X, Y, 4, 0, 0):
        assert torch.equal(x, X[index])
        assert torch.equal(y, Y[index])
    assert [len(part) for part in epochs[0]] == [4, 4, 2]
    assert sorted(functools.reduce(operator.iadd, epochs[0], [])) == list(range(10))
    assert epochs[0] == epochs[2] != epochs[1]


def test_the_history_holds_the_mean_loss_of_every_epoch() -> None:
    epochs: list[int] = []
    _, history = fit(
        mlp(),
        Recipe(),
        (X, Y),
        epochs=3,
        batch_size=4,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        on_epoch=lambda epoch, history: epochs.append(len(history.train_loss)),
    )
    expected = float(nn.functional.cross_entropy(mlp()(X), Y).detach())
    assert history.train_loss == pytest.approx([expected] * 3)
    assert epochs == [1, 2, 3]


def test_schedules_span_the_whole_training() -> None:
    recipe = Recipe(tikhon.L2(tikhon.linear(0.0, 1.0)))
    fit(mlp(), recipe, (X, Y), epochs=3, batch_size=4)
    assert recipe.step == 9
    assert recipe.progress == 1.0


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((X[:0], Y[:0]), {}, "empty"),
        ((X, Y[:3]), {}, "10 inputs do not fit 3 targets"),
        ((X, Y), {"epochs": 0}, "must be positive"),
        ((X, Y), {"batch_size": 0}, "must be positive"),
        ((X, Y), {"keep_best": "accuracy"}, "names no metric; there are none"),
        ((X, Y), {"keep_best": "accuracy", "metrics": {"loss": lambda model: 0.0}}, "there are loss"),
    ],
)
def test_wrong_input_is_refused_before_anything_changed(data: Any, options: dict[str, Any], message: str) -> None:
    model, recipe = mlp(), Recipe(tikhon.NestedDropout())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TikhonError, match=message):
        fit(model, recipe, data, **{"epochs": 1, **options})
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    fit(model, recipe, (X, Y), epochs=1)  # the recipe is unused still
