"""What a piece of work costs in memory: the rise of the process's high-water mark."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/status")


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _peak() -> int:
    if _STATUS.exists():
        return _status("VmHWM")
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Inside, the function given tells by how many bytes the process has grown at most since the beginning.

    On Linux the kernel's mark is reset first, so that an earlier, larger piece of work hides nothing; elsewhere the
    mark only ever rises, and the figure is a lower bound (0 on Windows).
    """
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")
        start = _status("VmRSS")
    else:
        start = _peak()
    yield lambda: max(_peak() - start, 0)
