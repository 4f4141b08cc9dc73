"""The page of an examination."""

from __future__ import annotations

import os
from dataclasses import replace

from tikhon.core.files import write_whole
from tikhon.report.checkup_plots import SPLITS, class_plot, curve_plots, number_plot, reliability_plot
from tikhon.report.checkup_text import HOW, NO_METHOD, NOTHING, USE, has_recipes, samples
from tikhon.report.examined import Checkup
from tikhon.report.rendering import refuse_no_page, render


def render_checkup(found: Checkup) -> str:
    """The whole page as HTML text: findings with what helps, what is sound, and figures. The same numbers give the
    same text."""
    return render(
        "checkup.html",
        title="Check-up",
        finding=_summed_up(found),
        settings=list(found.about.items()),
        found=found,
        numbers={one.name: number_plot(one) for one in (*found.findings, *found.sound)},
        samples=samples,
        no_method=NO_METHOD,
        use=(HOW, USE) if has_recipes(found) else (),
        curve_looks={name: look for name, look in SPLITS.items() if any(name in one for one in found.drawn.curves)},
        class_looks={name: replace(SPLITS[name], dash=()) for name in ("train", "test")},
        curves=curve_plots(found.drawn),
        reliability=reliability_plot(found.drawn),
        classes=class_plot(found.drawn),
    )


def write_checkup(found: Checkup, path: str | os.PathLike[str]) -> None:
    """Write the page, whole or not at all. Raises TikhonError where `path` is no place for one."""
    refuse_no_page(path)
    write_whole(render_checkup(found), path)


def _summed_up(found: Checkup) -> str:
    if not found.findings:
        return NOTHING
    names = ", ".join(one.name for one in found.findings)
    return f"{len(found.findings)} finding{'s' * (len(found.findings) > 1)}, the heaviest first: {names}."
