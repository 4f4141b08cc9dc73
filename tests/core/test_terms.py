"""Terms and value checks: shapes, strengths of zero, NaN named with its term and step, labels, logs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon import L2, Method, Recipe, Target, Term, TikhonError

from .common import CARD, Remembering, mlp, ready, rows, train


class Adds(Method):
    """A term that the test gives."""

    card = CARD

    def __init__(self, value: Tensor, strength: Any = 1.0, *, name: str = "extra", per_sample: bool = True) -> None:
        super().__init__()
        self.value, self.strength, self.name, self.per_sample = value, strength, name, per_sample

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        return {self.name: Term(self.value, self.strength, self.per_sample)}


@pytest.mark.parametrize("shape", [(), (1,), (8, 1), (7,), (8, 8)])
def test_a_per_sample_term_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    recipe = Recipe(Adds(torch.ones(shape)))
    ready(recipe)
    with pytest.raises(TikhonError, match=r"term adds/extra has shape .* \(8,\)"):
        recipe.loss(*rows())


def test_a_strength_of_zero_skips_an_infinite_term() -> None:
    recipe = Recipe(Adds(torch.full((8,), float("inf")), 0.0))
    model, _ = ready(recipe)
    x, y = rows()
    assert torch.equal(recipe.loss(x, y), F.cross_entropy(model(x), y))
    assert "loss/adds/extra" not in recipe.log()


def test_terms_share_weights_and_denominator() -> None:
    value, weight = torch.linspace(0, 7, 8, dtype=torch.float64), torch.linspace(1, 2, 8, dtype=torch.float64)
    recipe = Recipe(Adds(value, 2.0))
    model, _ = ready(recipe)
    x, y = rows()
    losses = F.cross_entropy(model(x), y, reduction="none") + 2.0 * value
    torch.testing.assert_close(recipe.loss(x, y, weight=weight), (weight * losses).sum() / weight.sum())


def test_a_term_of_the_whole_batch_counts_once() -> None:
    recipe = Recipe(Adds(torch.tensor(3.0), 2.0, per_sample=False))
    model, _ = ready(recipe)
    x, y = rows()
    torch.testing.assert_close(recipe.loss(x, y), F.cross_entropy(model(x), y) + 6.0)


def test_strengths_follow_their_schedules_through_training() -> None:
    recipe = Recipe(Adds(torch.ones(8), tikhon.linear(0, 4)))
    model, optimizer = ready(recipe, steps=4)
    x, y = rows()
    for number in range(3):
        plain = float(F.cross_entropy(model(x), y).detach())
        assert train(recipe, optimizer)[0] == pytest.approx(plain + number)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_term_that_is_not_finite_is_named_with_the_step(bad: float) -> None:
    method = Adds(torch.zeros(8))
    recipe = Recipe(method, Remembering())
    model, optimizer = ready(recipe)
    train(recipe, optimizer, 2)
    recipe.end_epoch()
    method.value = torch.full((8,), bad)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(TikhonError, match=r"at step 2 \(epoch 1\): adds/extra is not finite") as caught:
        train(recipe, optimizer)
    assert "task" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert recipe.methods["remembering"].memory.staged == 0  # type: ignore[union-attr]
    method.value = torch.zeros(8)
    train(recipe, optimizer)
    assert recipe.step == 3


def test_nan_inputs_name_the_task() -> None:
    recipe = Recipe()
    ready(recipe)
    x, y = rows()
    with pytest.raises(TikhonError, match=r"nan at step 0 .*task is not finite"):
        recipe.loss(x * float("nan"), y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 3]), "Labels range from 0 to 3, but the model has 3 classes"),
        (torch.tensor([-1, 2]), "Labels range from -1 to 2"),
        (torch.tensor([0, 2], dtype=torch.int32), r"int64.*labels.long\(\)"),
        (torch.tensor([0.0, 1.0]), "Class indices must be integers"),
        (torch.tensor([[0], [1]]), r"expected \(2,\)"),
        (torch.tensor([0, 1, 2]), r"expected \(2,\)"),
        (torch.ones(2, 4), "do not fit scores"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_wrong_labels_are_refused(y: Tensor, message: str, training: bool) -> None:
    recipe = Recipe(Adds(torch.zeros(2)))
    model, _ = ready(recipe)
    model.train(training)
    with pytest.raises(TikhonError, match=message):
        recipe.loss(rows(2)[0], y)


def test_ignored_labels_are_no_labels_out_of_range() -> None:
    recipe = Recipe(base=nn.CrossEntropyLoss(ignore_index=255))
    ready(recipe)
    x, y = rows(4)
    y[1] = 255
    assert float(recipe.loss(x, y).detach()) > 0
    y[2] = -100
    with pytest.raises(TikhonError, match="range from -100"):
        recipe.loss(x, y)


def test_scores_and_values_of_the_wrong_shape_or_kind_are_refused() -> None:
    recipe = Recipe()
    ready(recipe, nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double())
    with pytest.raises(TikhonError, match=r"scores of shape \(batch, classes\).*base="):
        recipe.loss(*rows())
    regression = Recipe(base=F.mse_loss)
    ready(regression, mlp())
    with pytest.raises(TikhonError, match="broadcast"):
        regression.loss(rows()[0], torch.zeros(8, 1))
    with pytest.raises(TikhonError, match="floating-point"):
        regression.loss(rows()[0], torch.zeros(8, 3, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(8, 1), (7,), ()])
def test_sample_weights_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    recipe = Recipe()
    ready(recipe)
    with pytest.raises(TikhonError, match=r"one number a sample, shape \(8,\)"):
        recipe.loss(*rows(), weight=torch.ones(shape))


def test_base_losses_must_be_functions_that_leave_the_reduction() -> None:
    with pytest.raises(TikhonError, match="reduction='mean'"):
        Recipe(base=nn.MSELoss(reduction="sum"))
    with pytest.raises(TikhonError, match="base= must be a loss function"):
        Recipe(base="mse")
    recipe = Recipe(base=lambda output, target: (output - target).square().mean())
    ready(recipe)
    with pytest.raises(TikhonError, match="one loss for every sample"):
        recipe.loss(rows()[0], rows()[0])


def test_classification_methods_need_a_classification_loss() -> None:
    with pytest.raises(
        TikhonError, match="label_smoothing needs class scores and labels, but the base loss is on values"
    ):
        Recipe(tikhon.LabelSmoothing(), base=F.mse_loss)


def test_an_output_that_is_no_tensor_is_refused() -> None:
    model = mlp()
    model.register_forward_hook(lambda module, args, output: {"logits": output})
    recipe = Recipe()
    ready(recipe, model)
    with pytest.raises(TikhonError, match=r"returned dict.*output="):
        recipe.loss(*rows())


def test_the_log_holds_parts_and_strengths() -> None:
    recipe = Recipe(Adds(torch.full((8,), 2.0), 0.5), L2(tikhon.linear(0.0, 1.0, by="step", over=(0, 2)), where="all"))
    model, optimizer = ready(recipe)
    x, y = rows()
    task = float(F.cross_entropy(model(x), y).detach())
    train(recipe, optimizer)
    assert recipe.log() == {
        "loss/task": pytest.approx(task),
        "loss/adds/extra": 2.0,
        "l2/strength": 0.5,
        "sparsity": 0.0,
    }
    squares = sum(float(p.detach().square().sum()) for p in model.parameters())
    train(recipe, optimizer)
    assert recipe.log()["loss/l2/norm"] == pytest.approx(squares / 2)


def test_terms_named_like_their_method_are_not_named_twice() -> None:
    recipe = Recipe(Adds(torch.ones(8), name="adds"))
    _, optimizer = ready(recipe)
    train(recipe, optimizer)
    assert "loss/adds" in recipe.log()


class Growing(Method):
    """Adds a row of class 0 to every batch."""

    card = CARD
    slots = {"batch": "select"}

    def batch(self, inputs: Any, target: Target, step: Any) -> tuple[Any, Target]:
        row = torch.ones_like(inputs[:1])
        return torch.cat([inputs, row]), Target.of(torch.cat([target.value, torch.zeros(1, dtype=torch.int64)]))


def test_a_method_may_add_rows_and_labels_are_still_checked() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    recipe = Recipe(Growing())
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    both, labels = torch.cat([x, torch.ones(1, 3)]), torch.cat([y, torch.zeros(1, dtype=torch.int64)])
    torch.testing.assert_close(recipe.loss(x, y), F.cross_entropy(model(both), labels))
    with pytest.raises(TikhonError, match="0 to 1"):
        recipe.loss(x, y + 1)
    with pytest.raises(TikhonError, match="does not fit a batch"):
        recipe.loss(x, y[:3])
