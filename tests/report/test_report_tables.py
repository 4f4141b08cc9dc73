"""The table in the terminal."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console
from sample_comparison import TASK, build

from tikhon.report.comparison import Comparison
from tikhon.report.tables import comparison_table


def shown(comparison: Comparison, width: int = 80, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(comparison_table(comparison))
    text: str = console.file.getvalue()
    return text


def test_every_number_stands_whole_within_80_columns() -> None:
    sample = build()
    text = shown(sample)
    assert max(len(line) for line in text.splitlines()) <= 80
    for arm in sample.arms:
        line = next(line for line in text.splitlines() if line.startswith(f"{arm.name} "))
        assert f" {100 * arm.mean:.1f} " in line
        assert f"[{100 * arm.low:.1f}, {100 * arm.high:.1f}]" in line
        assert f" {100 * arm.calibration_error:.1f} " in line
        assert f" {arm.relative_time:.2f}x {arm.relative_memory:.2f}x" in line
        if arm.difference is not None:
            assert f" {100 * arm.difference:+.1f}* " in line
            assert f"[{100 * arm.difference_low:.1f}, {100 * arm.difference_high:.1f}]" in line
    assert "…" not in text


def test_r_squared_fits_80_columns_too() -> None:
    arms = [
        replace(arm, calibration_error=None, difference_low=-0.123 if arm.difference else None) for arm in build().arms
    ]
    text = shown(Comparison({"data": "diabetes", "metric": "r2"}, arms))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert f"{arms[2].mean:.3f}" in text


def test_a_long_name_folds_and_numbers_stay_whole() -> None:
    sample = build()
    long = replace(sample.arms[2], name="elr(strength=3.0, momentum=0.7)+mixup(alpha=0.2)")
    text = shown(Comparison(TASK, [sample.arms[0], long]))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert f"[{100 * long.low:.1f}, {100 * long.high:.1f}]" in text


def test_a_pipe_gets_no_colours_and_still_learns_who_won() -> None:
    text = shown(build())
    assert "\x1b" not in text
    assert "elr+mixup has the largest clear gain" in " ".join(text.split())


def test_the_best_arm_is_emphasised_in_a_terminal_and_uncoloured_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    lines = shown(build(), force_terminal=True).splitlines()
    assert "\x1b[1;32m" in next(line for line in lines if "elr+mixup" in line)
    assert "\x1b[1;32m" not in next(line for line in lines if "ps_kd" in line)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32m" not in shown(build(), force_terminal=True)


def test_names_are_no_markup_and_missing_numbers_are_dashes() -> None:
    arm = replace(build().arms[0], name="[red]x[/red]", mean=math.nan, low=None, high=None)
    text = shown(Comparison(TASK, [arm]), width=120)
    assert "[red]x[/red]" in text
    assert " - " in text
    assert "nan" not in text
