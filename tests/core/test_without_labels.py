"""Training without labels: losses of the output alone, what a batch may be, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon import Card, Loss, Method, MixUp, MultiSampleDropout, OutputLoss, Recipe, Step, Target, Term, TikhonError
from tikhon import no_loss as nothing
from tikhon.core.losses import as_loss

from .common import CARD, mlp, rows


def entropy(output: Tensor) -> Tensor:
    return -(output.softmax(1) * output.log_softmax(1)).sum(1)


class Entropy(Method):
    """Takes the labels away and makes the predictions sure."""

    card: Card = CARD  # type: ignore[misc]
    breaks = frozenset({"classes", "values"})

    def loss_function(self, loss: Loss) -> Loss:
        return nothing

    def terms(self, output: Tensor, target: Target, step: Step) -> dict[str, Term]:
        return {"entropy": Term(entropy(output))}


def attached(*methods: Method, **arguments: object) -> tuple[Recipe, nn.Module]:
    recipe = Recipe(*methods, **arguments)  # type: ignore[arg-type]
    model = recipe.prepare(mlp())
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model


def gradients(recipe: Recipe, model: nn.Module, *batch: object, **arguments: object) -> list[Tensor]:
    model.zero_grad()
    recipe.loss(*batch, **arguments).backward()  # type: ignore[arg-type]
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_a_loss_of_the_output_and_a_term_on_no_loss_are_the_plain_loop() -> None:
    x, labels = rows()
    plain = mlp()
    entropy(plain(x)).mean().backward()
    for given in ({"base": OutputLoss(entropy)}, {}):
        recipe, model = attached(*([] if given else [Entropy()]), **given)
        for batch in ((x,), (x, labels)):  # labels are not looked at
            for found, expected in zip(gradients(recipe, model, *batch), plain.parameters(), strict=True):
                torch.testing.assert_close(found, expected.grad)


def test_micro_batches_and_weights_count_as_with_labels() -> None:
    x, _ = rows()
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    recipe, model = attached(Entropy())
    whole = gradients(recipe, model, x, weight=weight)
    plain = mlp()
    ((entropy(plain(x)) * weight).sum() / weight.sum()).backward()
    for found, expected in zip(whole, plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected.grad)
    model.zero_grad()
    for part, own in zip(x.split(4), weight.split(4), strict=True):
        recipe.loss(part, weight=own, total=4.0).backward()
    for parameter, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_a_batch_may_be_a_mapping_or_said_where() -> None:
    x, labels = rows()
    recipe, model = attached(Entropy())
    expected = gradients(recipe, model, x)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, pixels: Tensor) -> Tensor:
            found: Tensor = self.net(pixels)
            return found

    named = Recipe(Entropy(), target="labels")
    model = named.prepare(Named())
    named.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    for found, wanted in zip(gradients(named, model, {"pixels": x, "labels": labels}), expected, strict=True):
        assert torch.equal(found, wanted)
    placed, model = attached(Entropy(), inputs=lambda batch: batch[0])
    for found, wanted in zip(gradients(placed, model, (x, labels)), expected, strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(TikhonError, match="inputs=lambda"):
        recipe.loss((x, x))


def test_methods_that_change_batch_or_evaluation_need_no_labels() -> None:
    x, _ = rows()
    for other in (MixUp(), MultiSampleDropout(samples=2, p=0.0)):
        recipe, model = attached(Entropy(), other)
        assert all(gradient.isfinite().all() for gradient in gradients(recipe, model, x))


def test_the_base_loss_outside_training_needs_its_target() -> None:
    x, labels = rows()
    recipe, model = attached(Entropy())
    model.eval()
    torch.testing.assert_close(recipe.loss(x, labels), F.cross_entropy(model(x), labels))
    with pytest.raises(TikhonError, match="needs a target"):
        recipe.loss(x)
    recipe, model = attached(base=nothing)
    with torch.no_grad():
        assert recipe.loss(x).item() == 0.0


def test_smoothing_of_labels_that_are_not_there_is_left_out() -> None:
    x, _ = rows()
    recipe, model = attached(Entropy(), base=nn.CrossEntropyLoss(label_smoothing=0.1))
    plain, other = attached(Entropy())
    assert torch.equal(gradients(recipe, model, x)[0], gradients(plain, other, x)[0])


def test_what_does_not_fit_is_refused() -> None:
    x, _ = rows()
    recipe, _ = attached(base=OutputLoss(lambda output: entropy(output).mean()))
    with pytest.raises(TikhonError, match="one loss for every sample"):
        recipe.loss(x)
    recipe, model = attached(base=nothing)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(TikhonError, match="task is not finite"):
        recipe.loss(x)
    loss, _ = as_loss(nothing)
    for call in (lambda: loss.probabilities(x), lambda: loss.soft(x, x), lambda: loss.even(x, x)):
        with pytest.raises(TikhonError, match="output alone"):
            call()
