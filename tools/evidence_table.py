"""Draw the tables of the README, docs/evidence.md and docs/surveys.md from the stored numbers: `make evidence`."""

import json
from pathlib import Path

from tikhon.core.files import write_whole
from tikhon.report.evidence import demo_table, evidence_table, summary_table, with_table
from tikhon.report.survey import survey_tables
from tikhon.studies.evidence import bundled

ROOT = Path(__file__).parent.parent
README, WHOLE, SURVEYS = ROOT / "README.md", ROOT / "docs" / "evidence.md", ROOT / "docs" / "surveys.md"

if __name__ == "__main__":
    demo = json.loads((bundled() / "demo.json").read_text(encoding="utf-8"))
    text = with_table(README.read_text(encoding="utf-8"), "evidence", summary_table())
    write_whole(with_table(text, "demo", demo_table(demo)), README)
    write_whole(with_table(WHOLE.read_text(encoding="utf-8"), "evidence", evidence_table()), WHOLE)
    write_whole(with_table(SURVEYS.read_text(encoding="utf-8"), "surveys", survey_tables()), SURVEYS)
