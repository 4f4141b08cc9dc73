"""What the documentation shows is run: every doctest of the package, and the README's Python."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import tikhon

README = Path(__file__).parent.parent / "README.md"
MODULES = [module.name for module in pkgutil.walk_packages(tikhon.__path__, "tikhon.")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    module = importlib.import_module(name)
    given = {"torch": torch, "nn": torch.nn, "tikhon": tikhon, **vars(module)}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(module, name, globs=given):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_every_method_shows_how_it_is_used():
    sources = [path.read_text() for path in (Path(tikhon.__file__).parent / "methods").glob("*/*.py")]
    classes = [source for source in sources if "(Method)" in source]
    assert all(">>> recipe = tikhon.Recipe(" in source for source in classes)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
def test_readme(block):
    exec(compile(block, "README.md", "exec"), {})
