"""The table of what works where is drawn from what is stored, and nothing that is stored is missing or of the past."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from tikhon.core.catalogue import methods

ROOT = Path(__file__).parent.parent
AGAIN = "run `make works-with`, which runs the tests that are marked `environment` (ONLY=name for one method)"


def tool():
    spec = importlib.util.spec_from_file_location("works_with", ROOT / "tools" / "works_with.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_row_in_every_environment() -> None:
    stored = json.loads((ROOT / "docs" / "works_with.json").read_text(encoding="utf-8"))
    environments = {where for cells in stored.values() for where in cells}
    missing = [name for name in sorted(methods()) if environments - set(stored.get(name, {}))]
    gone = sorted(set(stored) - set(methods()))
    assert not missing, f"docs/works_with.json lacks {', '.join(missing)}: {AGAIN}"
    assert not gone, f"docs/works_with.json has {', '.join(gone)}, which are not in the catalogue: {AGAIN}"


def test_nothing_is_known_to_fail() -> None:
    stored = json.loads((ROOT / "docs" / "works_with.json").read_text(encoding="utf-8"))
    failing = [f"{name} ({where})" for name in stored for where, said in stored[name].items() if "fails: " in said]
    assert not failing, f"mend it, or exempt it with a reason, and {AGAIN}: {', '.join(failing)}"


def test_reasons_are_those_that_methods_give() -> None:
    """What a method is exempt from may have changed since."""
    stored = json.loads((ROOT / "docs" / "works_with.json").read_text(encoding="utf-8"))
    laws = {
        "FSDP2": "shards",
        "accumulation": "accumulation",
        "compile": "compile",
        "export": "export",
        "autocast": "mixed precision",
    }
    stale = []
    for name, cells in stored.items():
        exempt = methods()[name].load().exempt if name in methods() else {}
        for where, law in laws.items():
            if where in cells and cells[where] != exempt.get(law, "works"):
                stale.append(f"{name} ({where})")
    assert not stale, f"docs/works_with.json is of other exemptions of {', '.join(stale)}: {AGAIN}"


def test_the_page_is_what_is_stored() -> None:
    works_with = tool()
    stored = json.loads(works_with.STORED.read_text(encoding="utf-8"))
    assert works_with.PAGE.read_text(encoding="utf-8") == works_with.drawn(stored), f"the page is not drawn: {AGAIN}"


def test_a_reason_is_a_number_with_a_note() -> None:
    page = tool().drawn({"a": {"DDP": "works", "FSDP2": "it cannot"}, "b": {"FSDP2": "it cannot", "other": "works"}})
    assert "| method | DDP | FSDP2 | other |" in page
    assert "| a | ✓ | 1 |  |" in page
    assert "| b |  | 1 | ✓ |" in page
    assert "1. it cannot" in page
