"""Copies of large batches, in memory that the system hands out in large pages."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LARGE = 2**25
"""Bytes from which on the allocators of Linux give every block back, so that the next is new memory: 32 MiB."""


def copied(values: Tensor) -> Tensor:
    """The same values in memory of their own, as `values.clone()` has them.

    A large copy on the CPU costs less, a third on Linux: new memory is handed out page by page, which takes several
    times as long as to fill it. NumPy asks for large pages, where torch does so only under an environment variable.
    """
    if not values.is_cpu or values.nbytes < LARGE or not values.is_contiguous() or not is_plain(values):
        return values.clone()
    room = torch.from_numpy(np.empty(values.nbytes, np.uint8))
    return room.view(values.dtype).view(values.shape).copy_(values)


def is_plain(values: Tensor) -> bool:
    """Whether nothing stands behind a tensor but its values: no compiler, no transform of torch.func, no subclass.

    >>> is_plain(torch.ones(2)), is_plain(torch.nn.Parameter(torch.ones(2)))
    (True, False)
    """
    if torch.compiler.is_compiling() or type(values) is not Tensor:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(values)
