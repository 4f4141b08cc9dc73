"""With its neutral arguments a method is plain training; with others it is not, or no law here would mean anything."""

from __future__ import annotations

import pytest
import torch

from tikhon.core.catalogue import methods

from .rows import LAWS, METHODS, ROWS, make, make_neutral, problem_of
from .training import STEPS, Training, adamw, differing, network, obeys, plainly, sgd, tensors


@pytest.mark.parametrize("optimizer", [sgd, adamw])
@pytest.mark.parametrize("name", METHODS)
def test_neutral_is_plain_to_the_bit(name, optimizer):
    obeys(name, "neutral")
    torch.manual_seed(0)
    expected = plainly(network(dropout=0.2, problem=problem_of(name)), optimizer, 5, problem_of(name))
    torch.manual_seed(0)
    trained = Training.of(
        make_neutral(name), model=network(dropout=0.2, problem=problem_of(name)), optimizer=optimizer
    ).until(5)
    # Surgery renames weights: there the exported model is what can be compared.
    same_names = set(trained.model.state_dict()) == set(expected)
    found = trained.model if same_names else trained.recipe.export()
    assert not differing(tensors(found), expected)


@pytest.mark.parametrize("name", METHODS)
def test_its_arguments_change_training(name):
    torch.manual_seed(0)
    expected = plainly(network(problem=problem_of(name)), sgd, STEPS, problem_of(name))
    torch.manual_seed(0)
    trained = Training.of(make(name)).until(STEPS)
    assert differing(tensors(trained.recipe.export()), expected), (
        f"{name} as the laws try it is plain training: give it stronger arguments in tests/laws/rows.py"
    )


@pytest.mark.parametrize("name", METHODS)
def test_exemptions_name_laws_and_reasons(name):
    kind = methods()[name].load()
    assert set(kind.exempt) <= set(LAWS), f"{name}: the laws are {', '.join(LAWS)}"
    assert all(len(why.split()) >= 3 for why in kind.exempt.values()), f"{name}: say why, in a sentence"
    has_neutral = bool(kind.card.neutral) or (name in ROWS and ROWS[name].neutral is not None)
    assert has_neutral != ("neutral" in kind.exempt), f"{name}: neutral arguments, or a reason in exempt['neutral']"
