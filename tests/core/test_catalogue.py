"""The catalogue and the package: methods found by file and by class, and an import that costs little."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tikhon
from tikhon import Method, TikhonError
from tikhon.core.catalogue import by_class, catalogue, find, methods


def test_methods_are_found_by_file_and_by_class() -> None:
    assert find("elr") is find("ELR")
    assert find("nested_dropout").class_name == "NestedDropout"
    assert find("nested_dropout").family == "stochastic"
    assert find("mixup").load() is tikhon.MixUp


def test_every_entry_loads_and_its_key_is_its_file() -> None:
    for name, listing in methods().items():
        kind = listing.load()
        assert issubclass(kind, Method)
        assert kind.__name__ == listing.class_name
        assert listing.path.stem == name
        assert getattr(tikhon, listing.class_name) is kind
        assert kind.card.title
    assert len(by_class()) == len(catalogue())


def test_what_cannot_be_made_without_arguments_does_not_classify_of_its_own_accord() -> None:
    assert find("elr").classifies
    assert not find("group_dro").classifies  # asks for domains
    assert not find("coral").classifies  # asks for domains or unlabelled inputs, of which neither is required


def test_entries_that_are_no_method_have_a_card_and_a_name_of_their_own() -> None:
    for name in set(catalogue()) - set(methods()):
        listing = find(name)
        assert listing.card.title
        assert listing.card.kind != "method"
        assert getattr(tikhon, listing.class_name) is listing.load()


@pytest.mark.parametrize(
    ("name", "near"), [("mixupp", "mixup"), ("Mixup", "MixUp"), ("label-smoothing", "label_smoothing")]
)
def test_unknown_methods_get_near_misses(name: str, near: str) -> None:
    with pytest.raises(TikhonError, match=f"no method '{name}'.*'{near}'"):
        find(name)


def test_the_package_has_every_method_and_near_misses_for_others() -> None:
    assert {"MixUp", "Recipe", "linear"} <= set(dir(tikhon))
    assert {"ELR", "SAM"} <= set(dir(tikhon))
    with pytest.raises(AttributeError, match=r"no attribute 'MixUpp'.*'MixUp'"):
        _ = tikhon.MixUpp
    with pytest.raises(AttributeError, match=r"no attribute 'Recipee'.*'Recipe'"):
        _ = tikhon.Recipee
    with pytest.raises(AttributeError, match="__wrapped__"):
        _ = tikhon.__wrapped__
    assert all(hasattr(tikhon, name) for name in tikhon.__all__)


def test_importing_the_package_imports_nothing_optional() -> None:
    optional = (
        "typer",
        "rich",
        "matplotlib",
        "jinja2",
        "sklearn",
        "scipy",
        "mlxtend",
        "pandas",
        "tikhon.methods.mixing.mixup",
    )
    program = f"import sys, tikhon; print([name for name in {optional!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
