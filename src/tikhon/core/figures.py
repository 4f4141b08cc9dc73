"""Figures: where measures draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def given_or_new(axes: Axes | None) -> Axes:
    """The axes, or those of a new figure of pyplot, which notebooks show."""
    if axes is not None:
        return axes
    import matplotlib.pyplot as plt  # drawing is rare, and this import is slow

    return plt.subplots(layout="constrained")[1]
