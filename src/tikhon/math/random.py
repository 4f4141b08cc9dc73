"""Random numbers that torch does not draw as a method needs them."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = sys.float_info.min


def beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha), alpha > 0, on the CPU.

    Taken in the log domain, as the logistic function of the difference of two log-gamma draws, so that a small alpha
    gives 0 or 1 and not 0 / 0: log G(a) = log G(a + 1) + log(U) / a (Marsaglia and Tsang 2000, section 6).
    """
    shape = torch.full((2,), alpha + 1.0, dtype=torch.float64)
    gamma = torch._standard_gamma(shape, generator=generator).tolist()
    uniform = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
    # Python's arithmetic: on two numbers, operations of torch would take several times as long.
    one, other = (math.log(g) + math.log(max(u, TINY)) / alpha for g, u in zip(gamma, uniform, strict=True))
    return 0.5 + 0.5 * math.tanh(0.5 * (one - other))


def dropped(features: Tensor, p: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Every element is 0 with probability p, and otherwise divided by 1 - p: `F.dropout`, also of a p in a tensor.

    features: of any shape; p: in [0, 1], a number or a tensor (), which a compiled graph need not be compiled again
    for, or a tensor that broadcasts with the features; generator: where the mask of a p in a tensor comes from, torch's
    global one by default, from which numbers and tensors make draws of their own.

    >>> dropped(torch.ones(3), torch.tensor(1.0))
    tensor([0., 0., 0.])
    """
    if not isinstance(p, Tensor):
        return F.dropout(features, p)
    if generator is None:
        uniform = torch.rand_like(features, dtype=torch.float32)
    else:
        uniform = torch.rand(features.shape, generator=generator, device=features.device)
    kept = uniform >= p
    return features * (kept / (1.0 - p).clamp_min(1e-12)).to(features.dtype)


def centred(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draws from the uniform distribution on (-1/2, 1/2), symmetric about 0: on the odd multiples of 2^-16.

    From torch's global generator, of whose 64 bits each draw takes 16: in a third of the time that `torch.rand` takes.

    >>> centred((2, 3), torch.float32, torch.device("cpu")).shape
    torch.Size([2, 3])
    """
    count = math.prod(shape)
    words = torch.randint(-(2**63), 2**63 - 1, (-(-count // 4),), device=device)
    odd = words.bitwise_or_(0x0001_0001_0001_0001).view(torch.int16)[:count]
    return odd.to(dtype).mul_(2.0**-16).view(shape)
