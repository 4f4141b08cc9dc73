"""Wrong input to any method: a `TikhonError` that says what was wrong, and nothing has changed."""

from __future__ import annotations

import contextlib
import inspect
import math

import pytest
import torch

import tikhon
from tikhon.core.catalogue import methods
from tikhon.core.method import strengths

from .rows import CLASSIFYING, METHODS, arguments_of, make, problem_of
from .training import (
    BATCH,
    CLASSES,
    SAMPLES,
    STEPS,
    Training,
    batches,
    data,
    differing,
    network,
    obeys,
    sgd,
    state_of,
    tensors,
)

WITH_IDS = [name for name in METHODS if "ids" in make(name).needs]
STRENGTHS = [(name, scalar) for name in METHODS for scalar in strengths(methods()[name].load())]
SELECTIONS = [
    (name, argument)
    for name in METHODS
    for argument in ("where", "at")
    if argument in inspect.signature(methods()[name].load()).parameters
]


@pytest.fixture(autouse=True)
def _declared(request):
    """Every test here is about one method, which may be exempt."""
    obeys(request.node.callspec.params["name"], "errors")


def trained(name):
    """In the middle of a training, with a batch to go on with."""
    torch.manual_seed(0)
    training = Training.of(make(name)).until(3)
    return training, next(iter(batches(3, 4, problem=training.problem)))


def refused(training, inputs, labels, index):
    """The sentence with which a batch is refused; asserts that weights, buffers, optimizer and memories stay."""
    before = state_of(training)
    with pytest.raises(tikhon.TikhonError) as error:
        training.recipe.loss(inputs, labels, index=index)
    assert not differing(state_of(training), before)
    return str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_nan_input_names_the_step_and_the_term(name):
    training, (index, inputs, labels) = trained(name)
    inputs[0, 0, 2, 2] = math.nan
    sentence = refused(training, inputs, labels, index)
    assert "step 3" in sentence
    assert any(term in sentence for term in ("task", name))


@pytest.mark.parametrize("name", METHODS)
def test_training_goes_on_after_a_refused_batch_as_if_nothing_had_happened(name):
    ends = []
    for disturbed in (False, True):
        training, (index, inputs, labels) = trained(name)
        if disturbed:
            refused(training, torch.full_like(inputs, math.nan), labels, index)
            if name in CLASSIFYING:
                refused(training, inputs, labels + CLASSES, index)
        torch.manual_seed(0)  # the refused passes may have drawn masks of inserted modules
        ends.append(state_of(training.until(STEPS)))
    assert not differing(*ends)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda labels: labels + 1, "0 to 3"),
        (lambda labels: -labels - 1, "0 to 3"),
        (lambda labels: labels.int(), "int64"),
        (lambda labels: labels[:-1], "15"),
        (lambda labels: labels.float(), "(16,)"),
        (lambda labels: labels[:, None], "(16, 1)"),
    ],
    ids=["too large", "negative", "int32", "one too few", "floats", "a column"],
)
@pytest.mark.parametrize("name", CLASSIFYING)
def test_labels_that_do_not_fit(name, wrong, says):
    training, (index, inputs, labels) = trained(name)
    assert says in refused(training, inputs, wrong(labels), index)


@pytest.mark.parametrize("name", WITH_IDS)
def test_sample_ids_that_do_not_fit(name):
    with pytest.raises(tikhon.TikhonError, match="samples="):
        tikhon.Recipe(make(name), base=problem_of(name).base).prepare(network(problem=problem_of(name)))
    with pytest.raises(tikhon.TikhonError, match="samples"):
        tikhon.Recipe(make(name), base=problem_of(name).base).prepare(network(problem=problem_of(name)), samples=0)
    training, (index, inputs, labels) = trained(name)
    assert "indexed" in refused(training, inputs, labels, None)
    for wrong in (index - SAMPLES, index + SAMPLES, torch.where(index == index[0], -1, index)):
        assert f"samples={SAMPLES}" in refused(training, inputs, labels, wrong)
    for wrong in (index.float(), index[:-1], index[:, None]):
        assert f"{BATCH} integers" in refused(training, inputs, labels, wrong)


@pytest.mark.parametrize("name", METHODS)
def test_one_sample_and_one_class_are_finite_or_refused(name):
    training = Training.of(make(name))
    inputs, labels = data(problem=training.problem)
    with contextlib.suppress(tikhon.TikhonError):
        for _ in range(3):
            training.optimizer.zero_grad()
            training.recipe.loss(inputs[:1], labels[:1], index=torch.tensor([0])).backward()
            training.optimizer.step()
    assert all(value.isfinite().all() for value in tensors(training.model).values())


@pytest.mark.parametrize("value", [math.nan, math.inf, "strong", None, True])
@pytest.mark.parametrize(("name", "scalar"), STRENGTHS)
def test_scalars_that_are_none(name, scalar, value):
    default = inspect.signature(methods()[name].load()).parameters[scalar].default
    if value is None and default is None:
        pytest.skip(f"{scalar} may be None")
    with pytest.raises(tikhon.TikhonError, match=scalar):
        methods()[name].load()(**(arguments_of(name) | {scalar: value}))


@pytest.mark.parametrize(("name", "argument"), SELECTIONS)
def test_names_of_layers_that_the_model_lacks(name, argument):
    method = methods()[name].load()(**(arguments_of(name) | {argument: "hidde"}))
    model = network(problem=problem_of(name))
    before = tensors(model)
    with pytest.raises(tikhon.TikhonError, match="'hidden"):
        tikhon.Recipe(method, base=problem_of(name).base).prepare(model, samples=SAMPLES)
    assert not differing(tensors(model), before)


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_used_too_early_or_twice(name):
    (index, inputs, labels), *_ = batches(0, 1)
    model = network(problem=problem_of(name))
    recipe = tikhon.Recipe(make(name), base=problem_of(name).base)
    with pytest.raises(tikhon.TikhonError, match="prepare"):
        recipe.loss(inputs, labels, index=index)
    with pytest.raises(tikhon.TikhonError, match="prepare"):
        recipe.attach(sgd(model.parameters()), steps=STEPS, epochs=3)
    recipe.prepare(model, samples=SAMPLES)
    with pytest.raises(tikhon.TikhonError, match="attach"):
        recipe.loss(inputs, labels, index=index)
    with pytest.raises(tikhon.TikhonError, match="prepared already"):
        recipe.prepare(network(problem=problem_of(name)), samples=SAMPLES)
    optimizer = sgd(model.parameters())
    recipe.attach(optimizer, steps=STEPS, epochs=3)
    with pytest.raises(tikhon.TikhonError, match="attached already"):
        recipe.attach(optimizer, steps=STEPS, epochs=3)


@pytest.mark.parametrize("name", METHODS)
def test_an_optimizer_made_before_prepare(name):
    model = network(problem=problem_of(name))
    early = sgd(model.parameters())
    recipe = tikhon.Recipe(make(name), base=problem_of(name).base)
    recipe.prepare(model, samples=SAMPLES)
    owned = {id(one) for group in early.param_groups for one in group["params"]}
    if all(id(one) in owned for one in model.parameters()):
        recipe.attach(early, steps=STEPS, epochs=3)
        return
    with pytest.raises(tikhon.TikhonError, match=r"after recipe\.prepare"):
        recipe.attach(early, steps=STEPS, epochs=3)


@pytest.mark.parametrize("name", METHODS)
def test_a_mistyped_name_gets_near_misses(name):
    kind = methods()[name].load()
    with pytest.raises(AttributeError, match=kind.__name__):
        getattr(tikhon, kind.__name__ + "x")
