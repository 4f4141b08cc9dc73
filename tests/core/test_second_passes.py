"""Second passes: SAM's perturbation and its restoration, step.forward and step.clean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon import EMA, SAM, Method, MixUp, Recipe, TikhonError
from tikhon.core.passes import Passing, eval_mode

from .common import CARD, Remembering, mlp, ready, rows, same, sgd, train, weights


def backward(recipe: Recipe) -> None:
    x, y = rows()
    recipe.loss(x, y).backward()


def gradients_of(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]


def test_the_gradient_is_that_at_the_worst_point_nearby() -> None:
    recipe = Recipe(SAM(radius=0.5))
    model, _ = ready(recipe)
    backward(recipe)
    x, y = rows()
    plain = mlp()
    ascent = torch.autograd.grad(F.cross_entropy(plain(x), y), list(plain.parameters()))
    length = torch.cat([one.flatten() for one in ascent]).norm()
    with torch.no_grad():
        for parameter, direction in zip(plain.parameters(), ascent, strict=True):
            parameter.add_(0.5 * direction / length)
    F.cross_entropy(plain(x), y).backward()
    for one, other in zip(gradients_of(model), gradients_of(plain), strict=True):
        torch.testing.assert_close(one, other)


def test_weights_are_back_to_the_bit_when_backward_ends() -> None:
    recipe = Recipe(SAM(radius=0.5))
    model, _ = ready(recipe)
    before = weights(model)
    x, y = rows()
    loss = recipe.loss(x, y)
    assert not same(weights(model), before)  # the second backward pass happens at the perturbed weights
    loss.backward()
    assert same(weights(model), before)


def test_clipping_and_unscaling_see_unperturbed_weights() -> None:
    recipe = Recipe(SAM(radius=0.5))
    model, optimizer = ready(recipe)
    before, seen = weights(model), []

    def clip() -> None:
        seen.append(same(weights(model), before))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    train(recipe, optimizer, before=clip)
    assert seen == [True]


@pytest.mark.parametrize("how", ["state_dict", "export", "detach", "deployed", "next loss", "step", "load_state_dict"])
def test_weights_return_without_a_backward_pass(how: str) -> None:
    recipe = Recipe(SAM(radius=0.5))
    model, optimizer = ready(recipe)
    before = weights(model)
    state = recipe.state_dict()
    x, y = rows()
    recipe.loss(x, y)
    assert not same(weights(model), before)
    restore: dict[str, Callable[[], Any]] = {
        "state_dict": recipe.state_dict,
        "export": recipe.export,
        "detach": recipe.detach,
        "deployed": lambda: recipe.deployed().__enter__(),
        "next loss": lambda: backward(recipe),
        "step": optimizer.step,
        "load_state_dict": lambda: recipe.load_state_dict(state),
    }
    restore[how]()
    assert same(weights(model), before)


class FailsOnItsSecondPass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.calls = mlp(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("out of memory")
        return self.body(x)


def test_weights_return_after_an_exception_in_the_second_pass() -> None:
    recipe = Recipe(SAM(radius=0.5), Remembering())
    model, optimizer = ready(recipe, FailsOnItsSecondPass())
    before = weights(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(recipe, optimizer)
    assert same(weights(model), before)
    assert recipe.methods["remembering"].memory.staged == 0  # type: ignore[union-attr]
    train(recipe, optimizer)
    assert recipe.step == 1


def test_weights_return_after_an_exception_in_backward() -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise RuntimeError("broken backward")

    recipe = Recipe(SAM(radius=0.5))
    model, optimizer = ready(recipe)
    before = weights(model)
    x, y = rows()
    with pytest.raises(RuntimeError, match="broken backward"):
        Fails.apply(recipe.loss(x, y)).backward()
    train(recipe, optimizer)
    recipe.detach()
    reference = Recipe(SAM(radius=0.5))
    plain, plain_optimizer = ready(reference)
    assert same(weights(plain), before)
    train(reference, plain_optimizer)
    for one, other in zip(weights(model), weights(plain), strict=True):
        torch.testing.assert_close(one, other)


def normed() -> nn.Module:
    return nn.Sequential(mlp()[0], nn.BatchNorm1d(4).double(), nn.Dropout(0.5), mlp()[2])


def test_second_passes_repeat_dropout_masks_and_move_no_norm_statistics() -> None:
    outputs: list[Tensor] = []

    class Twice(Method):
        card = CARD

        def around(self, inner: Any, step: Any) -> Tensor:
            outputs.append(inner().detach())
            outputs.append(inner().detach())
            return inner()

    recipe = Recipe(Twice())
    model, _ = ready(recipe, normed())
    reference = normed()
    reference.load_state_dict(model.state_dict())
    x, y = rows()
    torch.manual_seed(5)
    loss = recipe.loss(x, y)
    left = torch.get_rng_state()
    torch.manual_seed(5)
    expected = F.cross_entropy(reference(x), y)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(loss, expected)
    assert torch.equal(left, torch.get_rng_state())  # and the caller's random numbers go on as without second passes
    for name, buffer in reference.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name


def test_second_passes_repeat_mixed_inputs_and_draws() -> None:
    losses: list[Tensor] = []

    class Twice(Method):
        card = CARD

        def around(self, inner: Any, step: Any) -> Tensor:
            losses.extend([inner().detach(), inner().detach()])
            return inner()

    recipe = Recipe(Twice(), MixUp())
    ready(recipe)
    x, y = rows()
    assert not torch.equal(recipe.loss(x, y).detach(), F.cross_entropy(mlp()(x), y))
    assert torch.equal(losses[0], losses[1])


def test_each_micro_batch_has_a_perturbation_of_its_own() -> None:
    x, y = rows()
    recipe = Recipe(SAM(radius=0.5))
    model, _ = ready(recipe)
    parts = []
    for part in (slice(0, 4), slice(4, 8)):
        alone = Recipe(SAM(radius=0.5))
        other, _ = ready(alone)
        alone.loss(x[part], y[part]).backward()
        parts.append(gradients_of(other))
        recipe.loss(x[part], y[part]).backward()
    for found, first, second in zip(gradients_of(model), *parts, strict=True):
        torch.testing.assert_close(found, first + second)


def test_two_owners_of_the_second_pass_are_refused() -> None:
    with pytest.raises(TikhonError, match=r"sam and wider cannot run together: .* second pass"):
        Recipe(SAM(), SAM(0.1).named("wider"))


def test_two_owners_of_the_deployed_weights_are_refused() -> None:
    with pytest.raises(TikhonError, match="ema and slow cannot run together"):
        Recipe(EMA(), EMA(0.9999).named("slow"))


# Extra passes of methods ---------------------------------------------------------------------------------------------


class Extra(Method):
    card = CARD

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.passes = passes
        self.found: list[Tensor] = []

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        self.found = [step.forward(rows(seed=3)[0]) for _ in range(self.passes)]
        return {}


def test_an_extra_pass_moves_neither_statistics_nor_random_numbers() -> None:
    ends = []
    for passes in (0, 3):
        method = Extra(passes)
        recipe = Recipe(method)
        model, optimizer = ready(recipe, normed())
        torch.manual_seed(7)
        train(recipe, optimizer, 2)
        ends.append((torch.get_rng_state(), [buffer.clone() for buffer in model.buffers()], weights(model)))
    assert torch.equal(ends[0][0], ends[1][0])
    assert same(ends[0][1], ends[1][1])
    assert same(ends[0][2], ends[1][2])
    assert method.found[0].requires_grad
    assert not method.found[0].allclose(method.found[0].flip(0))


def test_an_extra_pass_uses_batch_statistics() -> None:
    method = Extra(1)
    recipe = Recipe(method)
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False).double(), nn.Linear(3, 3).double())
    ready(recipe, model)
    x, y = rows()
    recipe.loss(x, y)
    other = rows(seed=3)[0]
    normal = (other - other.mean(0)) / (other.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(method.found[0], model[1](normal))


class AsksForClean(Method):
    card = CARD

    def __init__(self) -> None:
        super().__init__()
        self.clean: list[Tensor] = []
        self.output: Tensor | None = None

    def remember(self, output: Tensor, target: Any, step: Any) -> None:
        self.output = output
        self.clean.append(step.clean(output))


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.calls = mlp(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.body(x)


def test_clean_outputs_are_those_of_the_inputs_as_they_came_in_one_shared_pass() -> None:
    one, other = AsksForClean(), AsksForClean().named("other")
    recipe = Recipe(one, other, MixUp())
    model, _ = ready(recipe, Counted())
    x, y = rows()
    recipe.loss(x, y)
    assert model.calls == 2
    assert one.clean[0] is other.clean[0]
    assert not one.clean[0].requires_grad
    assert torch.equal(one.clean[0], model.body(x).detach())
    assert not torch.equal(one.output.detach(), one.clean[0])  # type: ignore[union-attr]


def test_clean_outputs_cost_nothing_where_nobody_changed_the_inputs() -> None:
    method = AsksForClean()
    recipe = Recipe(method)
    model, _ = ready(recipe, Counted())
    recipe.loss(*rows())
    assert model.calls == 1
    assert torch.equal(method.clean[0], method.output.detach())  # type: ignore[union-attr]
    assert not method.clean[0].requires_grad


class MixesInside(Method):
    """Mixes what the first layer returns, and the target; records in which calls of the layer it did."""

    card = CARD
    slots = {"prepare": "gate", "batch": "mix"}

    def __init__(self) -> None:
        super().__init__()
        self.of_loss: list[bool] = []
        self.passing = Passing()

    def prepare(self, model: nn.Module) -> None:
        model.body[0].register_forward_hook(self.mix)  # type: ignore[union-attr, index]

    def batch(self, inputs: Any, target: Any, step: Any) -> Any:
        self.passing = step.passing
        return inputs, target.mix(torch.arange(len(target)).flip(0), 0.7)

    def mix(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        self.of_loss.append(self.passing.of_loss)
        return torch.lerp(output.flip(0), output, 0.7) if self.of_loss[-1] else None


def test_clean_outputs_are_clean_where_features_are_mixed_inside_the_model() -> None:
    """The inputs are those that came, but the target tells that the output is not theirs."""
    asks, mixes = AsksForClean(), MixesInside()
    recipe = Recipe(asks, mixes)
    model, _ = ready(recipe, Counted())
    x, y = rows()
    recipe.loss(x, y)
    assert mixes.of_loss == [True, False]
    model(x)  # a call of the caller's own
    assert mixes.of_loss == [True, False, False]
    assert torch.equal(asks.clean[0], model.body(x).detach())
    assert not torch.equal(asks.output.detach(), asks.clean[0])  # type: ignore[union-attr]


def test_further_passes_of_the_loss_count_as_such_and_an_exception_ends_them() -> None:
    mixes = MixesInside()
    recipe = Recipe(SAM(radius=0.1), mixes)
    ready(recipe, Counted())
    recipe.loss(*rows()).backward()
    assert mixes.of_loss == [True, True]
    with pytest.raises(ZeroDivisionError), mixes.passing.during(True):
        raise ZeroDivisionError
    assert not mixes.passing.of_loss


def test_memories_under_mixing_hold_predictions_on_clean_inputs() -> None:
    class Keeps(Remembering):
        def remember(self, output: Tensor, target: Any, step: Any) -> None:
            self.memory.write(target.ids, step.clean(output))

    method = Keeps()
    recipe = Recipe(method, MixUp())
    model = recipe.prepare(mlp(), samples=8)
    optimizer = sgd(model)
    recipe.attach(optimizer)
    expected = model(rows()[0]).detach()
    train(recipe, optimizer)
    assert torch.equal(method.table, expected)


def test_eval_mode_keeps_gradients_and_puts_every_mode_back() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    model[2].eval()
    with eval_mode(model):
        assert not any(module.training for module in model.modules())
        assert model(torch.ones(2, 3)).requires_grad
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert torch.equal(model[1].running_mean, torch.zeros(3))
