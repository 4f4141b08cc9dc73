"""Draw the README's table of evidence from the stored numbers: `make evidence`."""

from pathlib import Path

from tikhon.report.evidence import evidence_table, with_table
from tikhon.report.page import write_whole

README = Path(__file__).parent.parent / "README.md"

if __name__ == "__main__":
    write_whole(with_table(README.read_text(encoding="utf-8"), evidence_table()), README)
