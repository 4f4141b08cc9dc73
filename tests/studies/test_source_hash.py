"""What makes results stale: code, and not what is said about it."""

from __future__ import annotations

from tikhon.studies.arms import source_hash

CODE = '''"""A file."""

LEAST = 1.0
"""What it is."""


def half(x: float) -> float:
    """A half,
    said at length."""
    return x / 2.0
'''


def test_docstrings_do_not_count_and_code_does(tmp_path) -> None:
    def hashed(text: str) -> str:
        (tmp_path / "one.py").write_text(text)
        return source_hash(tmp_path / "one.py")

    for said in (("A file.", "Another."), ("What it is.", "It is\nthis."), ("said at length", "and briefly")):
        assert hashed(CODE.replace(*said)) == hashed(CODE)
    for changed in (("1.0", "1.5"), ("x / 2.0", "x"), ("LEAST", "MOST"), ("float) ", "int) ")):
        assert hashed(CODE.replace(*changed)) != hashed(CODE)
