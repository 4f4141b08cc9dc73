"""Draw the tables of the README and of docs/evidence.md from the stored numbers: `make evidence`."""

import json
from pathlib import Path

from tikhon.report.evidence import demo_table, evidence_table, summary_table, with_table
from tikhon.report.page import write_whole
from tikhon.studies.evidence import bundled

ROOT = Path(__file__).parent.parent
README, WHOLE = ROOT / "README.md", ROOT / "docs" / "evidence.md"

if __name__ == "__main__":
    demo = json.loads((bundled() / "demo.json").read_text(encoding="utf-8"))
    text = with_table(README.read_text(encoding="utf-8"), "evidence", summary_table())
    write_whole(with_table(text, "demo", demo_table(demo)), README)
    write_whole(with_table(WHOLE.read_text(encoding="utf-8"), "evidence", evidence_table()), WHOLE)
