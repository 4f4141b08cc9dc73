"""Learned strengths: the hypergradient against the step itself, when it acts, what is saved, and what is refused."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon import ELR, L1, L2, SAM, Learned, Method, MixUp, Recipe, Term, TikhonError, stepwise

from .common import CARD, mlp, ready, rows, same, sgd, train, weights

EVERY_STEP: dict[str, Any] = {"every": 1}


def validation(count: int = 8, seed: int = 7) -> list[tuple[Tensor, Tensor]]:
    return [rows(count, seed)]


def staged(recipe: Recipe) -> dict[str, Tensor]:
    """The hypergradients that wait for the step to happen."""
    tuning = recipe._training.tuning
    assert tuning is not None
    return dict(tuning._staged or {})


def now(recipe: Recipe, name: str) -> float:
    return recipe.log()[name]


class Squared(Method):
    """The mean square of the scores of each sample, times whatever power of the strength the test asks for."""

    card = CARD

    def __init__(self, strength: tikhon.Strength = 1.0, power: int = 1, read: bool = True) -> None:
        super().__init__()
        self.strength, self.power, self.read = strength, power, read

    def terms(self, output: Tensor, target: Any, step: Any) -> dict[str, Term]:
        value = output.square().mean(1)
        return (
            {"square": Term(value, self.strength)}
            if not self.read
            else {"square": Term(value, step.value(self.strength) ** self.power)}
        )


class Stopped(Method):
    """A term whose value depends on the weights twice, and whose gradient is stopped once."""

    card = CARD

    def __init__(self, strength: tikhon.Strength = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def terms(self, output: Tensor, target: Any, step: Any) -> dict[str, Term]:
        return {"agreement": Term((output * output.detach().tanh()).sum(1), self.strength)}


class Pulling(Method):
    """A penalty on the parameters of which the strength is no factor."""

    card = CARD

    def __init__(self, strength: tikhon.Strength = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def parameter_terms(self, model: nn.Module, step: Any) -> dict[str, Term]:
        total = sum((one.leaf - step.value(self.strength)).square().sum() for one in step.select("weights"))
        return {"pull": Term(total, 0.3, per_sample=False)}


# The hypergradient ---------------------------------------------------------------------------------------------------


def by_the_step(make: Any, strength: float, batches: list[tuple[Tensor, Tensor]], share: float = 1e-3) -> float:
    """dV(w')/dlog s, from V after real steps with the strength a little higher and lower."""
    ends = []
    for factor in (1.0 + share, 1.0 - share):
        recipe = Recipe(make(strength * factor))
        model, optimizer = ready(recipe, lr=1e-6)
        train(recipe, optimizer)
        model.eval()
        with torch.no_grad():
            ends.append(float(recipe.loss(*batches[0])))
    return (ends[0] - ends[1]) / (2.0 * share)


@pytest.mark.parametrize(
    "make",
    [
        L2,
        L1,
        ELR,
        Stopped,
        Pulling,
        lambda s: Squared(s, read=False),
        lambda s: Squared(s, power=2),
        lambda s: tikhon.LabelSmoothing(s),
        lambda s: tikhon.InputGradientPenalty(s),
        lambda s: tikhon.KnowledgeDistillation(mlp(3), alpha=s),
    ],
)
def test_it_is_what_the_step_does_to_the_validation_loss(make: Any) -> None:
    recipe = Recipe(make(Learned(0.3, 0.1, 0.9))).tune(validation(), **EVERY_STEP)
    ready(recipe, lr=1e-6)
    recipe.loss(*rows(), index=torch.arange(8))
    ((_, found),) = staged(recipe).items()
    assert float(found) != 0.0
    assert float(found) == pytest.approx(by_the_step(make, 0.3, validation()), rel=1e-4)


def by_autograd(recipe: Recipe, model: nn.Module, penalty: Tensor, rates: list[float]) -> float:
    """-<lr v, grad R>."""
    leaves = list(model.parameters())
    (x, y), *_ = validation()
    v = torch.autograd.grad(F.cross_entropy(model(x), y), leaves)
    g = torch.autograd.grad(penalty, leaves, allow_unused=True)
    return -sum(float((r * a * b).sum()) for r, a, b in zip(rates, v, g, strict=True) if b is not None)


def test_several_at_once_with_a_rate_for_each_group() -> None:
    recipe = Recipe(L2(Learned(0.3, 0.1, 0.9)), Squared(Learned(2.0, 1.0, 3.0), read=False))
    recipe.tune(validation(), every=1)
    model = recipe.prepare(mlp())
    groups = [{"params": [p], "lr": 0.1 * k} for k, p in enumerate(model.parameters(), start=1)]
    recipe.attach(torch.optim.SGD(groups))
    x, y = rows()
    recipe.loss(x, y)
    found = staged(recipe)
    rates = [group["lr"] for group in groups]
    decay = sum(0.5 * p.square().sum() for p in model.parameters() if p.ndim > 1)
    assert float(found["l2/strength"]) == pytest.approx(0.3 * by_autograd(recipe, model, decay, rates), rel=1e-9)
    square = model(x).square().mean()
    assert float(found["squared/strength"]) == pytest.approx(2.0 * by_autograd(recipe, model, square, rates), rel=1e-6)


def backward_passes(module: nn.Module) -> list[int]:
    count: list[int] = []
    module.register_full_backward_hook(lambda *_: count.append(1))
    return count


def test_however_many_strengths_they_cost_one_backward_pass_and_two_forward() -> None:
    methods = [Squared(Learned(0.2, 0.1, 0.9), read=False).named(str(k)) for k in range(4)]
    recipe = Recipe(*methods, ELR(Learned(0.2, 0.1, 0.9)), L2(Learned(0.2, 0.1, 0.9))).tune(validation(), every=1)
    model, _ = ready(recipe)
    backward, forward = backward_passes(model[2]), []
    model.register_forward_hook(lambda *_: forward.append(torch.is_grad_enabled()))
    loss = recipe.loss(*rows(), index=torch.arange(8))
    assert len(staged(recipe)) == 6
    assert len(backward) == 1  # of the validation loss
    assert sorted(forward) == [False, False, True, True]  # the training pass, the validation pass, two for tangents
    loss.backward()
    assert len(backward) == 2


def test_other_steps_cost_nothing() -> None:
    recipe = Recipe(ELR(Learned(0.2, 0.1, 0.9))).tune(validation(), every=3)
    model, optimizer = ready(recipe)
    counts, forward = [], []
    model.register_forward_hook(lambda *_: forward.append(1))
    for _ in range(6):
        train(recipe, optimizer)
        counts.append(len(forward))
        forward.clear()
    assert counts == [1, 1, 4, 1, 1, 4]


def test_a_tuning_step_leaves_the_training_step_as_it_is() -> None:
    """With bounds that let the strength go nowhere: to the bit what a number does, dropout and norms included."""

    def ended(strength: Any) -> tuple[list[Tensor], Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)).double()
        recipe = Recipe(ELR(strength), L2(strength), MixUp())
        if not isinstance(strength, float):
            loader = torch.utils.data.DataLoader(list(zip(*rows(8, 7), strict=True)), batch_size=3, shuffle=True)
            recipe.tune(loader, every=2)
        _, optimizer = ready(recipe, model)
        train(recipe, optimizer, 6)
        return [*weights(model), *[b.clone() for b in model.buffers()]], torch.rand(2)

    (plain, after), (tuned, after_tuned) = ended(0.3), ended(Learned(0.3, 0.3, 0.3))
    assert same(plain, tuned)
    assert torch.equal(after, after_tuned)


# When it acts --------------------------------------------------------------------------------------------------------


def test_strengths_change_after_a_step_and_by_their_own_optimizer() -> None:
    recipe = Recipe(L2(Learned(0.3, 1e-6, 10.0))).tune(
        validation(), every=1, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=5.0)
    )
    _, optimizer = ready(recipe)
    recipe.loss(*rows()).backward()
    value = float(staged(recipe)["l2/strength"])
    assert now(recipe, "l2/strength") == 0.3
    optimizer.step()
    assert now(recipe, "l2/strength") == pytest.approx(0.3 * math.exp(-5.0 * value), rel=1e-6)
    assert len(optimizer.param_groups) == 1


def test_of_accumulated_micro_batches_the_first_tunes() -> None:
    recipe = Recipe(L2(Learned(0.3, 1e-6, 10.0)), MixUp()).tune(validation(), every=2)
    _, optimizer = ready(recipe)
    x, y = rows()
    seen = []
    for _ in range(4):
        optimizer.zero_grad()
        for part in (slice(4), slice(4, 8)):
            recipe.loss(x[part], y[part]).backward()
            seen.append((len(staged(recipe)), now(recipe, "l2/strength")))
        optimizer.step()
    assert [count for count, _ in seen] == [0, 0, 1, 1, 0, 0, 1, 1]
    values = [value for _, value in seen]
    assert values[:4] == [0.3] * 4
    assert len(set(values[4:])) == 1
    assert values[4] != 0.3


def test_a_skipped_step_moves_no_strength() -> None:
    recipe = Recipe(L2(Learned(0.3, 1e-6, 10.0))).tune(validation(), every=1)
    _, optimizer = ready(recipe)
    recipe.loss(*rows()).backward()
    optimizer.zero_grad()  # a scaler found infinities: no step
    before = staged(recipe)
    recipe.loss(*rows()).backward()
    assert torch.equal(staged(recipe)["l2/strength"], before["l2/strength"])
    assert now(recipe, "l2/strength") == 0.3
    recipe.skip_step()
    assert not staged(recipe)
    optimizer.step()
    assert now(recipe, "l2/strength") == 0.3


def test_a_closure_that_is_evaluated_again_tunes_once_a_step() -> None:
    recipe = Recipe(L2(Learned(0.3, 1e-6, 10.0))).tune(validation(), every=1)
    model = recipe.prepare(mlp())
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    recipe.attach(optimizer)
    modes: list[bool] = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = recipe.loss(*rows())
        loss.backward()
        return loss

    optimizer.step(closure)
    assert modes.count(True) > 2
    assert modes.count(False) == 1
    assert now(recipe, "l2/strength") != 0.3


def test_strengths_stay_between_their_bounds_and_it_is_said_where_they_stick() -> None:
    high = 0.3 * math.exp(0.25)
    recipe = Recipe(L2(Learned(0.3, 0.1, high), where="all")).tune(validation(), every=1, optimizer=_upwards)
    _, optimizer = ready(recipe, lr=1e-4)
    with pytest.warns(UserWarning, match="l2/strength has been at its bound"):
        train(recipe, optimizer, 30)
    assert now(recipe, "l2/strength") == high
    assert now(recipe, "l2/strength/at_bound") >= 20


def _upwards(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    class Up(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for one in parameters:
                one.data += 0.1

    return Up(parameters, lr=0.1)


def test_a_hypergradient_that_is_not_finite_is_passed_over_and_counted() -> None:
    x, y = rows()
    recipe = Recipe(L2(Learned(0.3, 0.1, 1.0))).tune([(x * math.inf, y)], every=1)
    model, optimizer = ready(recipe)
    train(recipe, optimizer, 3)
    assert now(recipe, "l2/strength") == 0.3
    assert now(recipe, "skipped/hypergradients") == 3.0
    assert all(one.isfinite().all() for one in weights(model))


def test_one_object_in_two_places_is_one_strength() -> None:
    shared = Learned(0.3, 0.1, 0.9)
    recipe = Recipe(L2(shared), Squared(shared, read=False)).tune(validation(), every=1)
    model, optimizer = ready(recipe)
    x, y = rows()
    recipe.loss(x, y).backward()
    penalty = sum(0.5 * p.square().sum() for p in model.parameters() if p.ndim > 1) + model(x).square().mean()
    expected = 0.3 * by_autograd(recipe, model, penalty, 4 * [0.1])
    assert {name: float(value) for name, value in staged(recipe).items()} == {
        "l2/strength": pytest.approx(expected, rel=1e-6)
    }
    optimizer.step()
    assert now(recipe, "l2/strength") == now(recipe, "squared/strength") != 0.3


def test_with_a_second_pass_the_first_is_tuned_on() -> None:
    def found(*more: Method) -> float:
        recipe = Recipe(ELR(Learned(0.3, 0.1, 0.9)), *more).tune(validation(), every=1)
        _, optimizer = ready(recipe)
        losses = train(recipe, optimizer, before=lambda: values.append(staged(recipe)["elr/strength"]))
        assert math.isfinite(losses[0])
        return float(values.pop())

    values: list[Tensor] = []
    assert found(SAM()) == found()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_near_what_it_is_in_full_precision(dtype: torch.dtype) -> None:
    def found(cast: bool) -> dict[str, float]:
        recipe = Recipe(L2(Learned(0.3, 0.1, 0.9)), Squared(Learned(2.0, 1.0, 3.0), read=False))
        recipe.tune([(x.float(), y) for x, y in validation()], every=1)
        ready(recipe, mlp().float())
        x, y = rows()
        with torch.autocast("cpu", dtype, enabled=cast):
            recipe.loss(x.float(), y)
        assert all(value.dtype == torch.float32 for value in staged(recipe).values())
        return {name: float(value) for name, value in staged(recipe).items()}

    full = found(False)
    assert found(True) == {name: pytest.approx(value, rel=0.05) for name, value in full.items()}


def test_gradients_too_small_for_half_precision_are_not_lost() -> None:
    x, y = rows()
    tiny = 1e-8  # below what float16 can hold

    def base(output: Tensor, target: Tensor) -> Tensor:
        return tiny * F.cross_entropy(output, target, reduction="none")

    recipe = Recipe(L2(Learned(0.3, 0.1, 0.9)), base=base).tune([(x.float(), y)], every=1)
    ready(recipe, mlp().float())
    with torch.autocast("cpu", torch.float16):
        recipe.loss(x.float(), y)
    assert float(staged(recipe)["l2/strength"]) != 0.0


def test_a_network_in_half_precision_takes_the_gradient_itself() -> None:
    recipe = Recipe(Squared(Learned(2.0, 1.0, 3.0), read=False)).tune(
        [(x.bfloat16(), y) for x, y in validation()], every=1
    )
    ready(recipe, mlp().bfloat16())
    x, y = rows()
    recipe.loss(x.bfloat16(), y)
    exact = mlp()
    expected = 2.0 * by_autograd(recipe, exact, exact(x).square().mean(), 4 * [0.1])
    assert float(staged(recipe)["squared/strength"]) == pytest.approx(expected, rel=0.1)


# Saving --------------------------------------------------------------------------------------------------------------


def tuned() -> tuple[Recipe, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    rows_of = list(zip(*rows(7, 7), strict=True))
    loader = torch.utils.data.DataLoader(rows_of, batch_size=3, shuffle=True)
    recipe = Recipe(ELR(Learned(1.0, 0.1, 9.0)), L2(Learned(0.1, 1e-3, 0.9))).tune(loader, every=2)
    model, optimizer = ready(recipe)
    return recipe, model, optimizer


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_it_goes_on_to_the_bit(stop: int, tmp_path: Any) -> None:
    recipe, model, optimizer = tuned()
    train(recipe, optimizer, 12)
    expected = weights(model), recipe.log(), recipe.state_dict()["tuning"]["validation"]

    recipe, model, optimizer = tuned()
    train(recipe, optimizer, stop)
    states = {"recipe": recipe.state_dict(), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(states, tmp_path / "state.pt")
    found = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.manual_seed(5)
    recipe, model, optimizer = tuned()
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    recipe.load_state_dict(found["recipe"])
    train(recipe, optimizer, 12 - stop)
    assert same(weights(model), expected[0])
    assert recipe.log() == expected[1]
    assert recipe.state_dict()["tuning"]["validation"] == expected[2]


def test_it_goes_on_to_the_bit_between_micro_batches() -> None:
    ends = []
    for stopped in (False, True):
        recipe, model, optimizer = tuned()
        train(recipe, optimizer, 3)
        recipe.loss(*rows(), index=torch.arange(8)).backward()  # a tuning step, its second micro-batch to come
        if stopped:
            state = copy.deepcopy((recipe.state_dict(), model.state_dict(), optimizer.state_dict()))
            gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
            recipe, model, optimizer = tuned()
            model.load_state_dict(state[1])
            optimizer.load_state_dict(state[2])
            recipe.load_state_dict(state[0])
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
        recipe.loss(*rows(), index=torch.arange(8)).backward()
        optimizer.step()
        train(recipe, optimizer, 3)
        ends.append((weights(model), recipe.log()["elr/strength"]))
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_fit_tunes_and_goes_on_from_its_checkpoint(tmp_path: Any) -> None:
    x, y = rows(32)

    def fitted(epochs: int, folder: Any) -> tuple[nn.Module, float]:
        recipe = Recipe(L2(Learned(0.1, 1e-3, 0.9))).tune(validation(), every=2)
        model, _ = tikhon.fit(
            mlp(),
            recipe,
            (x, y),
            epochs=6,
            batch_size=8,
            checkpoint=folder,
            on_epoch=lambda epoch, _: _stop(epoch, epochs),
        )
        return model, recipe.log()["l2/strength"]

    class Stopped(Exception):
        pass

    def _stop(epoch: int, epochs: int) -> None:
        if epoch >= epochs:
            raise Stopped

    whole, strength = fitted(9, None)
    with pytest.raises(Stopped):
        fitted(3, tmp_path)
    again, strength_again = fitted(9, tmp_path)
    assert same(weights(whole), weights(again))
    assert strength == strength_again != 0.1


def test_states_of_other_strengths_are_refused() -> None:
    recipe, _, _ = tuned()
    plain = Recipe(ELR(), L2())
    ready(plain)
    with pytest.raises(TikhonError, match="recipe that learns elr/strength, l2/strength; this one learns none"):
        plain.load_state_dict(recipe.state_dict())
    with pytest.raises(TikhonError, match="learns no strength; this one learns elr/strength, l2/strength"):
        recipe.load_state_dict(plain.state_dict())
    untuned = Recipe(ELR(Learned(1.0, 0.1, 9.0)), L2(Learned(0.1, 1e-3, 0.9)))
    ready(untuned)
    with pytest.raises(TikhonError, match=r"call recipe\.tune before"):
        untuned.load_state_dict(recipe.state_dict())


# Misuse --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers", [(0.1, 0.0, 1.0), (0.1, 0.2, 1.0), (2.0, 0.2, 1.0), (0.1, 0.01, math.inf), ("1", 0.1, 2.0)]
)
def test_wrong_bounds_are_refused(numbers: Any) -> None:
    with pytest.raises(TikhonError, match=r"Learned\(initial, low, high\)"):
        Learned(*numbers)


def test_bounds_outside_the_argument_are_refused_with_its_name() -> None:
    with pytest.raises(TikhonError, match=r"strength must be a finite number in \[0, 1\], not 2"):
        tikhon.LabelSmoothing(Learned(0.1, 0.01, 2.0))


def test_learned_without_tune_is_refused_at_the_first_loss() -> None:
    recipe = Recipe(L2(Learned(0.1, 0.01, 2.0)))
    ready(recipe)
    with pytest.raises(TikhonError, match=r"l2/strength is Learned.*recipe\.tune\(validation_batches\)"):
        recipe.loss(*rows())


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        ([], "no validation batches"),
        (iter(validation()), "can be gone through once"),
        (3, "a loader or a list, not int"),
    ],
)
def test_batches_that_cannot_be_drawn_from_are_refused(batches: Any, match: str) -> None:
    with pytest.raises(TikhonError, match=match):
        Recipe(L2(Learned(0.1, 0.01, 2.0))).tune(batches)


def test_tune_refuses_what_it_cannot_do() -> None:
    with pytest.raises(TikhonError, match="no strength is Learned"):
        Recipe(L2()).tune(validation())
    recipe = Recipe(L2(Learned(0.1, 0.01, 2.0)))
    for every in (0, 1.5, True):
        with pytest.raises(TikhonError, match="every is a number of optimizer steps"):
            recipe.tune(validation(), every=every)  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="makes a torch optimizer"):
        recipe.tune(validation(), optimizer=lambda parameters: None)  # type: ignore[arg-type, return-value]
    recipe.tune(validation())
    with pytest.raises(TikhonError, match="tuned already"):
        recipe.tune(validation())


@pytest.mark.parametrize(
    ("method", "where"),
    [
        (MixUp(Learned(0.4, 0.1, 1.0)), "mixup reads alpha in `batch`"),
        (SAM(Learned(0.05, 0.01, 0.1)), "sam reads radius in `around`"),
        (ELR(momentum=Learned(0.7, 0.1, 0.9)), "elr reads momentum in `remember`"),
        (tikhon.EMA(Learned(0.01, 0.001, 0.05)), "ema reads decay in `after_step`"),
    ],
)
def test_what_the_loss_is_no_function_of_is_refused(method: Method, where: str) -> None:
    recipe = Recipe(method).tune(validation())
    _, optimizer = ready(recipe)
    with pytest.raises(TikhonError, match=f"{where}.*tikhon tune"):
        train(recipe, optimizer, 3)


def test_training_samples_among_the_validation_samples_are_said_once() -> None:
    x, y = rows(64)
    recipe = Recipe(L2(Learned(0.1, 0.01, 2.0))).tune([(x[:32], y[:32]), (x[32:], y[32:])], every=1)
    _, optimizer = ready(recipe, samples=64)
    with pytest.warns(UserWarning, match="training samples are among the validation samples") as said:
        train(recipe, optimizer, 4, x=x, y=y)
    assert len(said) == 1


def test_held_out_samples_are_not_taken_for_training_samples() -> None:
    recipe = Recipe(L2(Learned(0.1, 0.01, 2.0))).tune(validation(64), every=1)
    _, optimizer = ready(recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(recipe, optimizer, 5)


def test_explain_says_what_is_learned() -> None:
    explained = Recipe(L2(Learned(1e-4, 1e-6, 0.1))).explain()
    assert explained.splitlines()[-1] == "l2/strength is learned between 1e-06 and 0.1"


# What it is for ------------------------------------------------------------------------------------------------------


def regression(noise: float, count: int, features: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2 * count, features, generator=generator, dtype=torch.float64)
    w = torch.randn(features, 1, generator=generator, dtype=torch.float64) / features**0.5
    y = x @ w + noise * torch.randn(2 * count, 1, generator=generator, dtype=torch.float64)
    return (x[:count], y[:count]), (x[count:], y[count:])


@pytest.mark.parametrize(("noise", "count", "rises"), [(3.0, 24, True), (0.0, 60, False)])
def test_a_strength_rises_where_it_helps_and_falls_where_it_hurts(noise: float, count: int, rises: bool) -> None:
    (x, y), held_out = regression(noise, count, 20)
    recipe = Recipe(L2(Learned(1e-2, 1e-4, 10.0)), base=F.mse_loss).tune([held_out], every=2)
    model = recipe.prepare(nn.Linear(20, 1).double())
    optimizer = sgd(model, 0.05)
    recipe.attach(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(recipe, optimizer, 400, x=x, y=y)
    found = now(recipe, "l2/strength")
    assert found > 1.0 if rises else found < 1e-3


def test_schedules_beside_it_still_follow_training() -> None:
    recipe = Recipe(L2(Learned(0.1, 0.01, 2.0)), L1(stepwise({0: 0.0, 2: 0.5}, by="step"))).tune(validation(), every=1)
    _, optimizer = ready(recipe)
    train(recipe, optimizer, 3)
    assert now(recipe, "l1/strength") == 0.5
