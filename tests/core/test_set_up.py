"""Set-up: prepare, compile or wrap, optimizer, attach, load; and what is refused when the order or a size is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import tikhon
from tikhon import ELR, L2, Method, MixUp, Recipe, TikhonError

from .common import CARD, Remembering, mlp, ready, rows, same, sgd, train, weights


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.gain


class AddsParameter(Method):
    card = CARD
    slots = {"prepare": "parametrize"}

    def prepare(self, model: nn.Module) -> None:
        parametrize.register_parametrization(model[0], "weight", Doubling())


class Refuses(Method):
    card = CARD

    def check(self, model: nn.Module) -> None:
        raise TikhonError("not this model")


def test_prepare_edits_in_place_and_returns_the_model() -> None:
    model = mlp()
    assert Recipe(AddsParameter()).prepare(model) is model
    assert parametrize.is_parametrized(model[0])


def test_every_check_comes_before_any_surgery() -> None:
    model = mlp()
    with pytest.raises(TikhonError, match="not this model"):
        Recipe(AddsParameter(), Refuses()).prepare(model)  # a key that sorts after the surgeon's
    assert not parametrize.is_parametrized(model[0])


def test_a_second_prepare_is_refused() -> None:
    recipe = Recipe()
    recipe.prepare(mlp())
    with pytest.raises(TikhonError, match="prepared already"):
        recipe.prepare(mlp())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, when it imports its compiler
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compiled", "data parallel"])
def test_compiled_and_wrapped_models_are_refused(wrap: object) -> None:
    with pytest.raises(TikhonError, match="plain model"):
        Recipe().prepare(wrap(mlp()))  # type: ignore[operator]


def test_memories_need_the_number_of_samples() -> None:
    with pytest.raises(TikhonError, match=r"samples=len\(train\)"):
        Recipe(ELR()).prepare(mlp())
    with pytest.raises(TikhonError, match="empty"):
        Recipe(ELR()).prepare(mlp(), samples=0)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(TikhonError, match="no parameters"):
        Recipe().prepare(nn.Sequential(nn.ReLU()))


def test_everything_before_prepare_is_refused() -> None:
    recipe, (x, y) = Recipe(), rows()
    with pytest.raises(TikhonError, match="prepare"):
        recipe.attach(sgd(mlp()))
    with pytest.raises(TikhonError, match="prepare"):
        recipe.loss(x, y)
    with pytest.raises(TikhonError, match="prepare"):
        recipe.export()
    with pytest.raises(TikhonError, match="prepare"):
        recipe.load_state_dict(recipe.state_dict())


def test_training_before_attach_is_refused() -> None:
    recipe, (x, y) = Recipe(), rows()
    recipe.prepare(mlp())
    with pytest.raises(TikhonError, match="attach"):
        recipe.loss(x, y)


def test_attach_twice_is_refused_and_possible_after_detach() -> None:
    recipe = Recipe()
    _model, optimizer = ready(recipe)
    with pytest.raises(TikhonError, match="attached already"):
        recipe.attach(optimizer)
    recipe.detach()
    recipe.attach(optimizer)
    train(recipe, optimizer)
    assert recipe.step == 1  # and not two: the first attachment's hooks are gone


def test_no_optimizer_the_same_twice_and_something_else_are_refused() -> None:
    recipe = Recipe()
    model = recipe.prepare(mlp())
    optimizer = sgd(model)
    with pytest.raises(TikhonError, match="needs the optimizer"):
        recipe.attach()
    with pytest.raises(TikhonError, match="twice"):
        recipe.attach(optimizer, optimizer)
    with pytest.raises(TikhonError, match="torch optimizers"):
        recipe.attach(model)


class Wrapper:
    """As frameworks put around optimizers."""

    def __init__(self, optimizer: object) -> None:
        self.optimizer = optimizer


def test_wrapped_optimizers_are_unwrapped_and_known_to_be_the_same() -> None:
    recipe = Recipe()
    optimizer = sgd(recipe.prepare(mlp()))
    with pytest.raises(TikhonError, match="twice"):
        recipe.attach(optimizer, Wrapper(Wrapper(optimizer)))
    recipe.attach(Wrapper(Wrapper(optimizer)))
    train(recipe, optimizer)
    assert recipe.step == 1


def test_an_optimizer_that_owns_nothing_of_the_model_is_refused() -> None:
    recipe = Recipe()
    recipe.prepare(mlp())
    with pytest.raises(TikhonError, match="owns no parameter"):
        recipe.attach(sgd(mlp()))


def test_an_optimizer_made_before_prepare_that_misses_new_parameters_is_refused() -> None:
    recipe, model = Recipe(AddsParameter()), mlp()
    early = sgd(model)
    recipe.prepare(model)
    with pytest.raises(TikhonError, match=r"misses .*weight.* after recipe.prepare"):
        recipe.attach(early)
    recipe.attach(sgd(model))


@pytest.mark.parametrize(
    ("strength", "length", "accepted"),
    [
        (tikhon.linear(0, 1), {}, False),
        (tikhon.linear(0, 1), {"steps": 10}, True),
        (tikhon.linear(0, 1), {"epochs": 2}, True),
        (tikhon.linear(0, 1, by="epoch"), {}, False),
        (tikhon.linear(0, 1, by="epoch"), {"steps": 10}, False),
        (tikhon.linear(0, 1, by="epoch"), {"epochs": 2}, True),
        (tikhon.linear(0, 1, by="step", over=(0, 5)), {}, True),
        (tikhon.stepwise({0.0: 0.0, 0.5: 1.0}), {}, False),
    ],
)
def test_schedules_that_need_a_length_are_refused_without_it(
    strength: tikhon.Schedule, length: dict[str, int], accepted: bool
) -> None:
    recipe = Recipe(L2(strength))
    optimizer = sgd(recipe.prepare(mlp()))
    if accepted:
        recipe.attach(optimizer, **length)
    else:
        with pytest.raises(TikhonError, match="l2's strength follows"):
            recipe.attach(optimizer, **length)


@pytest.mark.parametrize("length", [{"steps": 0}, {"epochs": -1}])
def test_lengths_must_be_positive(length: dict[str, int]) -> None:
    recipe = Recipe()
    with pytest.raises(TikhonError, match="positive"):
        recipe.attach(sgd(recipe.prepare(mlp())), **length)


def test_a_refused_attach_leaves_no_hook() -> None:
    recipe = Recipe(L2(tikhon.linear(0, 1)))
    optimizer = sgd(recipe.prepare(mlp()))
    with pytest.raises(TikhonError):
        recipe.attach(optimizer)
    optimizer.step()
    assert recipe.step == 0
    recipe.attach(optimizer, steps=1)


def test_progress_is_clamped_to_one() -> None:
    recipe = Recipe(L2(tikhon.linear(0, 1)))
    _, optimizer = ready(recipe, steps=2)
    assert recipe.progress == 0.0
    train(recipe, optimizer)
    assert recipe.progress == 0.5
    train(recipe, optimizer, 4)
    assert recipe.progress == 1.0
    assert recipe.log()["l2/strength"] == 1.0


def test_progress_by_epochs_takes_the_length_of_the_epoch_before() -> None:
    recipe = Recipe()
    _, optimizer = ready(recipe, epochs=2)
    train(recipe, optimizer, 4)
    assert recipe.progress == 0.0  # the length of the first epoch is not known before its end
    recipe.end_epoch()
    assert recipe.progress == 0.5
    train(recipe, optimizer, 1)
    assert recipe.progress == 0.5 + 0.25 / 2
    train(recipe, optimizer, 9)
    assert recipe.progress == 1.0
    assert recipe.epoch == 1


@pytest.mark.parametrize("mode", ["no_grad", "inference", "eval"])
def test_loss_without_training_is_the_plain_base_loss_and_moves_nothing(mode: str) -> None:
    method = Remembering()
    recipe = Recipe(method, MixUp(), L2(10.0), tikhon.LabelSmoothing(0.5))
    model, optimizer = ready(recipe)
    train(recipe, optimizer)
    x, y = rows(seed=1)
    table, generator, state = method.table, torch.get_rng_state(), recipe.state_dict()["clock"]
    if mode == "eval":
        model.eval()
        loss = recipe.loss(x, y)  # no index either
        assert loss.requires_grad
    else:
        with torch.no_grad() if mode == "no_grad" else torch.inference_mode():
            loss = recipe.loss(x, y)
    with torch.no_grad():
        assert torch.equal(loss, F.cross_entropy(model(x), y))
    assert torch.equal(method.table, table)
    assert torch.equal(torch.get_rng_state(), generator)
    assert recipe.state_dict()["clock"] == state
    assert method.memory.staged == 0


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(label_smoothing=0.2),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]).double(), label_smoothing=0.2),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]).double()),
    ],
    ids=["smoothing", "smoothing and weights", "weights"],
)
def test_loss_in_eval_is_the_callers_own_criterion(criterion: nn.CrossEntropyLoss) -> None:
    recipe = Recipe(MixUp(), base=criterion)
    model, _ = ready(recipe)
    x, y = rows()
    model.eval()
    torch.testing.assert_close(recipe.loss(x, y), criterion(model(x), y))


def test_an_empty_recipe_is_the_plain_loop_to_the_bit() -> None:
    recipe, (x, y) = Recipe(), rows()
    model, optimizer = ready(recipe, samples=None)
    plain = mlp()
    reference = sgd(plain)
    for _ in range(3):
        optimizer.zero_grad()
        reference.zero_grad()
        loss, expected = recipe.loss(x, y), F.cross_entropy(plain(x), y)
        assert torch.equal(loss, expected)
        loss.backward()
        expected.backward()
        optimizer.step()
        reference.step()
    assert same(weights(model), weights(plain))


@pytest.mark.parametrize("index", [[-1, 0], [0, 8]])
def test_sample_ids_out_of_range_are_refused(index: list[int]) -> None:
    method = Remembering()
    recipe = Recipe(method)
    ready(recipe, samples=8)
    x, y = rows(2)
    with pytest.raises(TikhonError, match="Sample ids range"):
        recipe.loss(x, y, index=torch.tensor(index))
    assert method.memory.staged == 0


def test_missing_or_misshapen_sample_ids_are_refused() -> None:
    recipe = Recipe(ELR())
    ready(recipe)
    x, y = rows(4)
    with pytest.raises(TikhonError, match="elr needs to know which samples"):
        recipe.loss(x, y)
    for index in (torch.arange(3), torch.arange(4.0), torch.arange(4)[:, None]):
        with pytest.raises(TikhonError, match="4 integers"):
            recipe.loss(x, y, index=index)


def test_the_wrapper_given_to_attach_or_loss_is_called() -> None:
    calls: list[str] = []

    def named(name: str, model: nn.Module) -> object:
        return lambda x: calls.append(name) or model(x)

    recipe, (x, y) = Recipe(), rows()
    model = recipe.prepare(mlp())
    recipe.attach(sgd(model), model=named("attached", model))
    recipe.loss(x, y).backward()
    recipe.loss(x, y, model=named("given", model)).backward()
    assert calls == ["attached", "given"]


def test_detach_takes_every_hook_off() -> None:
    recipe = Recipe(L2(1.0))
    model, optimizer = ready(recipe)
    train(recipe, optimizer)
    recipe.detach()
    model(rows()[0]).sum().backward()
    optimizer.step()
    assert recipe.step == 1
    assert all(not parameter._post_accumulate_grad_hooks for parameter in model.parameters())
