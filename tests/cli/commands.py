"""Running a command in this process, in a terminal of 80 columns that shows no colours."""

from typing import Any

from typer.testing import CliRunner

from tikhon.cli.app import app


def run(*words: str) -> Any:
    """exit_code, stdout and stderr of `tikhon WORDS`; an exception that is not an exit passes on."""
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*words: str) -> str:
    """What wrong input is told, on standard error alone, with exit code 2; as one line."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())
