"""CutMix against the official code, whose box is truncated: the box, the mixed batch, the adjusted share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.methods.mixing.cutmix import cutmix, share_outside, truncated_box


def check(case: Mapping[str, np.ndarray]) -> None:
    inputs, permutation = torch.from_numpy(case["x"]), torch.from_numpy(case["perm"])
    before, sizes = inputs.clone(), tuple(inputs.shape[2:])
    box = truncated_box(sizes, float(case["lam_drawn"]), (int(case["cx"]), int(case["cy"])))
    assert [*(side.start for side in box), *(side.stop for side in box)] == case["bbox"].tolist()
    assert torch.equal(cutmix(inputs, permutation, box), torch.from_numpy(case["x_mixed"]))
    assert torch.equal(inputs, before)
    np.testing.assert_allclose(share_outside(sizes, box), case["lam_adjusted"], rtol=1e-12)
