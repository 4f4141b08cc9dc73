"""Draw the README's tables from the stored numbers: `make evidence`."""

import json
from pathlib import Path

from tikhon.report.evidence import demo_table, evidence_table, with_table
from tikhon.report.page import write_whole
from tikhon.studies.evidence import bundled

README = Path(__file__).parent.parent / "README.md"

if __name__ == "__main__":
    demo = json.loads((bundled() / "demo.json").read_text(encoding="utf-8"))
    text = with_table(README.read_text(encoding="utf-8"), "evidence", evidence_table())
    write_whole(with_table(text, "demo", demo_table(demo)), README)
