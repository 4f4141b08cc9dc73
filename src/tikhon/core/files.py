"""Files that hold the old text or the new at any moment, never half of one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tikhon.core.errors import TikhonError


def write_whole(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text file whole, or leave the one that is there. Raises TikhonError where it cannot be written."""
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(target)
    except OSError as error:
        raise TikhonError(
            f"{target.name} cannot be written into {target.parent} ({error.strerror}): "
            "name a place that can be written to."
        ) from error
    finally:
        with suppress(OSError):  # there is none where the folder is no folder
            unfinished.unlink(missing_ok=True)
