"""Boxes of the official CutMix: rows of W, H, share, centre, two corners, adjusted share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tikhon.methods.mixing.cutmix import share_outside, truncated_box


def check(case: Mapping[str, np.ndarray]) -> None:
    for width, height, share, x, y, *corners, adjusted in case["rows"].tolist():
        sizes = (int(width), int(height))
        box = truncated_box(sizes, share, (x, y))
        assert [*(side.start for side in box), *(side.stop for side in box)] == corners
        np.testing.assert_allclose(share_outside(sizes, box), adjusted, rtol=1e-12)
