"""The documentation's Python runs, its commands exist, and its pages are those that the catalogue has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from tikhon.cli.app import app
from tikhon.core.card import PROBLEMS
from tikhon.core.catalogue import catalogue

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def blocks(language: str) -> list[object]:
    return [
        pytest.param(block, id=f"{page.relative_to(DOCS)}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL))
        if "--8<--" not in block  # an example, which has a test of its own
    ]


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {})


@pytest.mark.parametrize("block", blocks("console"))
def test_commands(block):
    for line in block.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words and words[0].endswith("tikhon"):
            group = typer.main.get_command(app)
            command = group.commands[words[1]]
            with command.make_context(words[1], words[2:]) as context:  # refuses what the command does not know
                assert context.command is command


def test_included_examples_exist():
    for page in PAGES:
        for name in re.findall(r'--8<-- "(.*?)"', page.read_text()):
            assert (DOCS.parent / name).exists()
            assert list((DOCS.parent / "tests" / "examples").glob("*.py"))


def test_every_example_is_listed():
    named = set(re.findall(r"examples/(\w+\.py)", "\n".join(page.read_text() for page in PAGES)))
    assert named == {path.name for path in (DOCS.parent / "examples").glob("*.py")}


def test_tables_ask_for_what_the_catalogue_has():
    text = "\n".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"<!-- methods: ([\w-]+) -->", text)) <= set(PROBLEMS)
    entries = [name for found in re.findall(r"<!-- entries: (.+?) -->", text) for name in found.split(", ")]
    assert entries
    assert set(entries) <= set(catalogue())
