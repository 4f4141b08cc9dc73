"""What works where: `--works-with FILE` keeps, of every test that is marked `environment`, how its method fared there.

A test says `@pytest.mark.environment("DDP")` and is parametrised by `name`, the method's; a skip with a reason counts
as that reason, and so does a failure. `make works-with` runs these tests and draws docs/works_with.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tikhon.core.catalogue import methods

WORKS = "works"


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """What a test draws from torch's global generator does not depend on the tests before it."""
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--works-with", metavar="FILE", help="merge how methods fare in their environments into this JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "environment(where, by='name'): how the method `by` fares there is kept")
    if config.getoption("--works-with") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(Path(config.getoption("--works-with"))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("environment")
        if marker is not None and isinstance(item, pytest.Function):
            name = item.callspec.params[marker.kwargs.get("by", "name")]
            item.user_properties.append(("works with", [marker.args[0], name]))  # which travels from workers


class Collector:
    """Of several tests of a method in an environment, the first that does not pass counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, value in report.user_properties:
            if key == "works with" and (report.when == "call" or not report.passed):
                where, name = value
                cells = self.found.setdefault(name, {})
                if cells.get(where, WORKS) == WORKS:
                    cells[where] = self._said(report)

    def _said(self, report: pytest.TestReport) -> str:
        if report.passed:
            return WORKS
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            return reason.partition(": ")[2] if " is exempt from " in reason else reason
        crash: Any = getattr(report.longrepr, "reprcrash", None)
        return "fails: " + (crash.message.splitlines()[0] if crash else "see the test")

    def pytest_sessionfinish(self) -> None:
        stored = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        for name, cells in self.found.items():
            stored[name] = stored.get(name, {}) | cells
        kept = {name: dict(sorted(stored[name].items())) for name in sorted(stored) if name in methods()}
        self.file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
