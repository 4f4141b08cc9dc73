"""Refined schedules against the official closed form and the official minimiser of the bound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.measures.refined_schedule import closed_form, numeric_schedule, refined_schedule

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    norms, distance = torch.from_numpy(case["G"]), float(case["D"])
    for kind, official in (("sgd", "schedule_sgd"), ("adam", "schedule_adam_l1_weights")):
        expected = torch.from_numpy(case[official])  # divided by the last weight: the shape is what counts
        found = refined_schedule(norms, kind, smoothing=0.0)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected / expected.max(), **CLOSE)
        weights = norms ** (-2.0 if kind == "sgd" else -1.0)
        torch.testing.assert_close(closed_form(weights), expected / expected.max(), **CLOSE)
    # Both minimisers stop at a tolerance of their own, where the bound is flat.
    expected = torch.from_numpy(case["schedule_numeric"])
    torch.testing.assert_close(
        numeric_schedule(norms, distance), expected, rtol=2e-3, atol=1e-3 * expected.max().item()
    )
