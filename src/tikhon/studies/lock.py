"""One process at a time per directory, by an advisory lock that the operating system drops when its holder dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tikhon.core.errors import TikhonError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def _lock_at_once(descriptor: int) -> None:
    """Lock the open file or raise: BlockingIOError or PermissionError where another process holds it."""
    if sys.platform == "win32":
        # Windows locks byte ranges and bars others from reading them: take a byte far behind the process id.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DirectoryLock:
    """Hold `directory` for this process until `release`, or until the process ends in whatever way.

    The file `results.lock` stays behind on purpose: a lock file that is deleted lets two processes each lock their own
    copy. Being there means nothing; only the lock on it does. It holds the holder's process id, for the message.

    Raises TikhonError when another process holds the directory, or when it cannot be created, written or locked.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "results.lock"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise TikhonError(f"cannot write into the directory {directory}: {error}. Choose another --out.") from error
        try:
            _lock_at_once(self._descriptor)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(self._descriptor, 20).decode(errors="replace") or "unknown"
            os.close(self._descriptor)
            raise TikhonError(
                f"another process (id {holder}) is writing results into {directory}. "
                "Wait until it has finished, or choose another --out."
            ) from error
        except OSError as error:
            os.close(self._descriptor)
            raise TikhonError(
                f"cannot lock {path}: {error}. Choose an --out on a file system that supports locks and has space left."
            ) from error

    def release(self) -> None:
        """Let other processes in."""
        os.close(self._descriptor)
