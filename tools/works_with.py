"""Draw docs/works_with.md from docs/works_with.json, what the tests kept: `make works-with`."""

from __future__ import annotations

import json
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
STORED, PAGE = DOCS / "works_with.json", DOCS / "works_with.md"
WORKS = "works"
ORDER = ("plain loop", "accumulation", "resume", "export", "compile", "autocast", "GradScaler", "DDP", "FSDP2")
"""The environments that come first; others follow by name."""

HEAD = """# What works where

Drawn by `make works-with` from what the tests saw, one test or more of every method in every environment: ✓ where it
does there what it does in a plain loop; a number where it does not, or does something else, with the reason below. What
cannot work says so itself, before training begins.

plain loop: the same seed gives the same weights; accumulation: several micro-batches equal one batch; resume: to the
bit, in a new process; export: plain torch with the same outputs; compile: `torch.compile(fullgraph=True)`; autocast: in
bfloat16; GradScaler: a step that it skips leaves nothing behind; DDP: two processes with DistributedDataParallel;
FSDP2: two processes with sharded parameters; Lightning, Accelerate, Trainer: the plain loop's weights, to the bit.
"""


def drawn(stored: dict[str, dict[str, str]]) -> str:
    """The page. A cell without a test is empty."""
    found = {where for cells in stored.values() for where in cells}
    columns = [*[one for one in ORDER if one in found], *sorted(found - set(ORDER))]
    reasons: list[str] = []
    lines = [f"| method | {' | '.join(columns)} |", f"| --- |{' :-: |' * len(columns)}"]
    for name, cells in stored.items():
        row = []
        for where in columns:
            said = cells.get(where, "")
            if said not in (WORKS, ""):
                if said not in reasons:
                    reasons.append(said)
                said = str(reasons.index(said) + 1)
            row.append("✓" if said == WORKS else said)
        lines.append(f"| {name} | {' | '.join(row)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([HEAD, *lines, "", "## The numbers", "", *notes, ""])


if __name__ == "__main__":
    PAGE.write_text(drawn(json.loads(STORED.read_text(encoding="utf-8"))), encoding="utf-8")
