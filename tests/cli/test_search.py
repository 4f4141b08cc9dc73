"""`tikhon search`."""

import json

import pytest
from commands import refused, run
from typer.testing import CliRunner

from tikhon.cli.app import app

QUESTION = "half my labels may be wrong and I have little data"


def test_it_names_entries_and_says_why_within_80_columns() -> None:
    lines = run("search", QUESTION, "--limit", "5").stdout.splitlines()
    names = [line.split()[0] for line in lines if line and not line.startswith(" ")][:-1]
    assert "elr" in names
    assert len(names) == 5
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    assert '"labels wrong" means noisy-labels (some training labels are wrong)' in said
    assert "both say half, wrong, labels" in said
    assert lines[-1] == "tikhon show NAME says more of one."


@pytest.mark.parametrize("width", [40, 20])
def test_it_fits_a_narrow_terminal_without_cutting(width: int) -> None:
    shown = CliRunner().invoke(app, ["search", QUESTION], env={"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"})
    assert max(map(len, shown.stdout.splitlines())) <= width
    assert "…" not in shown.stdout
    assert "\x1b" not in shown.stdout


def test_words_need_no_quotes_and_json_is_an_array() -> None:
    rows = json.loads(run("search", *QUESTION.split(), "--json", "--limit", "3").stdout)
    assert rows == json.loads(run("search", QUESTION, "--json", "--limit", "3").stdout)
    assert len(rows) == 3
    assert set(rows[0]) == {
        "key", "name", "title", "year", "family", "kind", "problems", "score", "words", "meant"
    }  # fmt: skip
    assert rows[0]["meant"]["labels wrong"].startswith("noisy-labels")


def test_what_finds_nothing_says_so_and_no_question_is_refused() -> None:
    result = run("search", "qqq", "zzz")
    assert (result.exit_code, result.stdout.split(".")[0]) == (0, "Nothing in the catalogue is like that")
    assert json.loads(run("search", "qqq", "--json").stdout) == []
    assert "Ask in a few words" in refused("search", "the")
