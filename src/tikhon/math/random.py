"""Random numbers that torch does not draw from a generator of one's own."""

from __future__ import annotations

import torch


def beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha), alpha > 0, on the CPU.

    Taken in the log domain, as the logistic function of the difference of two log-gamma draws, so that a small alpha
    gives 0 or 1 and not 0 / 0: log G(a) = log G(a + 1) + log(U) / a (Marsaglia and Tsang 2000, section 6).
    """
    shape = torch.full((2,), alpha + 1.0, dtype=torch.float64)
    gamma = torch._standard_gamma(shape, generator=generator)
    uniform = torch.rand(2, dtype=torch.float64, generator=generator)
    log_gamma = gamma.log() + uniform.log() / alpha
    return float(torch.sigmoid(log_gamma[0] - log_gamma[1]))
