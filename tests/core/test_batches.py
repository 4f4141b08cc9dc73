"""Batches as people have them: tensors, tuples, mappings, nests; with keys and with functions."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon import MixUp, Recipe, TikhonError

from .common import Remembering, mlp, ready, rows, train

X, Y = rows()
INDEX = torch.tensor([3, 1, 4, 0, 5, 2, 6, 7])


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, image: Tensor, extra: Tensor) -> Tensor:
        return self.body(image + extra)


class Answer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, image: Tensor) -> Any:
        return SimpleNamespace(logits=self.body(image), hidden=None)


def expected(extra: Tensor | float = 0.0) -> Tensor:
    return F.cross_entropy(mlp()(X + extra), Y)


@pytest.mark.parametrize(
    ("places", "batch"),
    [
        ({}, (X, Y)),
        ({}, [X, Y]),
        ({}, (INDEX, X, Y)),
        ({"inputs": "image", "target": "label", "index": "id"}, {"image": X, "label": Y, "id": INDEX, "junk": None}),
        ({"inputs": "image", "target": "label"}, {"image": X, "label": Y, "index": INDEX}),
        ({"inputs": lambda b: b[1][0], "target": lambda b: b[1][1], "index": lambda b: b[0]}, (INDEX, (X, Y))),
        ({"inputs": "image", "target": "label", "index": "id"}, namedtuple("B", "image label id")(X, Y, INDEX)),
    ],
    ids=["tuple", "list", "indexed tuple", "mapping", "mapping with index", "functions of a nest", "attributes"],
)
def test_whole_batches(places: dict[str, Any], batch: Any) -> None:
    recipe = Recipe(**places)
    ready(recipe)
    assert torch.equal(recipe.loss(batch), expected())
    found = recipe._reading.read(batch, None, None)[2]
    assert found is None or torch.equal(found, INDEX)


@pytest.mark.parametrize(
    ("places", "batch"),
    [({}, (INDEX, X, Y)), ({"inputs": "x", "target": "y", "index": "id"}, {"x": X, "y": Y, "id": INDEX})],
)
def test_sample_ids_are_found_and_used(places: dict[str, Any], batch: Any) -> None:
    method = Remembering()
    recipe = Recipe(method, **places)
    model, optimizer = ready(recipe)
    p = model(X).softmax(1).detach()
    recipe.loss(batch).backward()
    optimizer.step()
    torch.testing.assert_close(method.table[INDEX], 0.5 * p)


def test_models_of_several_inputs_take_tuples_and_mappings() -> None:
    extra = rows(seed=2)[0]
    recipe = Recipe(target="label")
    ready(recipe, TwoInputs())
    assert torch.equal(recipe.loss((X, extra), Y), expected(extra))
    assert torch.equal(recipe.loss({"image": X, "extra": extra}, Y), expected(extra))
    batch = {"image": X, "extra": extra, "label": Y, "index": INDEX}
    assert torch.equal(recipe.loss(batch), expected(extra))
    assert set(batch) == {"image", "extra", "label", "index"}


@pytest.mark.parametrize("output", ["logits", lambda answer: answer.logits])
def test_outputs_are_found_in_what_the_model_returns(output: Any) -> None:
    recipe = Recipe(output=output)
    model, _ = ready(recipe, Answer())
    assert torch.equal(recipe.loss(X, Y), expected())
    model.eval()
    assert torch.equal(recipe.loss(X, Y), expected())


def test_nested_inputs_are_mixed_throughout_and_integers_left_alone() -> None:
    seen: list[Any] = []

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()

        def forward(self, views: list[Tensor], tokens: Tensor) -> Tensor:
            seen.append((views, tokens))
            return self.body(views[0] + views[1])

    recipe = Recipe(MixUp())
    _, optimizer = ready(recipe, Nested())
    tokens = torch.arange(8)
    batch = {"views": [X, 2 * X], "tokens": tokens}
    train(recipe, optimizer, x=batch, y=Y, index=INDEX)  # type: ignore[arg-type]
    views, given = seen[0]
    assert not torch.equal(views[0], X)
    torch.testing.assert_close(views[1], 2 * views[0])
    assert torch.equal(given, tokens)
    assert isinstance(views, list)


def test_named_tuples_stay_named_tuples() -> None:
    Pair = namedtuple("Pair", "one two")
    from tikhon.core.batches import map_tensors

    mapped = map_tensors(lambda values: values + 1, Pair(torch.zeros(2), {"deep": [torch.ones(1), "text"]}))
    assert mapped.one.tolist() == [1.0, 1.0]
    assert mapped.two["deep"][0].tolist() == [2.0]
    assert mapped.two["deep"][1] == "text"


@pytest.mark.parametrize(
    ("places", "batch", "message"),
    [
        ({}, X, "needs inputs and target"),
        ({}, (X,), "needs inputs and target"),
        ({}, {"image": X, "label": Y}, "say which of them is the target"),
        ({"target": "labels"}, {"image": X, "label": Y}, "no 'labels' to be the target.*Did you mean 'label'"),
        ({"target": "label", "inputs": "img"}, {"image": X, "label": Y}, "no 'img' to be the inputs"),
        ({"target": "label", "index": "idx"}, {"image": X, "label": Y}, "no 'idx' to be the index"),
        ({"target": "label"}, (X, Y), "target='label' is a key, but the batch is a tuple"),
        ({"target": lambda b: b[1]}, (X, Y), "Say where the inputs are"),
    ],
)
def test_batches_that_cannot_be_read(places: dict[str, Any], batch: Any, message: str) -> None:
    recipe = Recipe(**places)
    ready(recipe)
    with pytest.raises(TikhonError, match=message):
        recipe.loss(batch)


def test_inputs_without_any_tensor_and_tokens_under_mixing_are_refused() -> None:
    recipe = Recipe(MixUp())
    ready(recipe)
    with pytest.raises(TikhonError, match="no tensor"):
        recipe.loss(["text"], Y)
    with pytest.raises(TikhonError, match="mixup mixes floating-point inputs"):
        recipe.loss(torch.arange(8), Y)
