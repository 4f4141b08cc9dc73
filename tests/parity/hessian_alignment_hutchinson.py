"""Hessian alignment by Hutchinson's diagonal against the official code, with its probes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from hessian_alignment import Domains, compare


def check(case: Mapping[str, np.ndarray]) -> None:
    mean, environments = torch.from_numpy(case["z_mean"]), torch.from_numpy(case["z_env"])
    compare(case, Domains(case), torch.cat([mean[None], environments]))
