"""Checkpoints: files that are whole or not there, and that execute nothing when they are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tikhon.core.errors import TikhonError

FORMAT = 2
LAST, BEFORE = "last.pt", "before.pt"


def write(path: Path, state: Any) -> None:
    """Write tensors and plain values to a file: whoever looks finds what was there before, or all of this."""
    whole = path.with_name(path.name + ".new")
    with whole.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # else a machine that loses its power may keep the name and lose the content
    whole.replace(path)


def read(path: Path) -> Any:
    """What `write` wrote, on the CPU. Raises `TikhonError` for a file that is damaged, or holds more than data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TikhonError(f"There is no {path}.") from None
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise TikhonError(f"{path} is damaged or no checkpoint, and nothing in it was run: {why}") from error


class Checkpoint:
    """The two latest states of one training, in a folder of its own.

    identity: plain values by which this training is known from another: a state of another one is refused.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = Path(folder), dict(identity)
        if self.folder.exists() and not self.folder.is_dir():
            raise TikhonError(f"{self.folder} is a file; checkpoints need a folder of their own.")

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep this state and the one before it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        last = self.folder / LAST
        if last.exists():
            before = self.folder / BEFORE
            before.unlink(missing_ok=True)
            os.link(last, before)  # at no moment is there no file called `last`
        write(last, {"format": FORMAT, "identity": self.identity, "state": dict(state)})

    def load(self) -> dict[str, Any] | None:
        """The latest state, or the one before where that file was deleted; None where there is neither."""
        there = [path for path in (self.folder / LAST, self.folder / BEFORE) if path.exists()]
        if not there:
            return None
        last = there[0]
        try:
            found = read(last)
        except TikhonError as error:
            rest = f"go on from {there[1]}" if len(there) > 1 else "begin anew"
            raise TikhonError(f"{error} Delete it to {rest}.") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("state"), dict):
            raise TikhonError(f"{last} is no checkpoint of this version of tikhon: name another folder.")
        differing = [name for name, value in self.identity.items() if found["identity"].get(name) != value]
        if differing:
            name = differing[0]
            raise TikhonError(
                f"{last} is of another training: its {name} is {found['identity'].get(name)!r}, this one's "
                f"{self.identity[name]!r}. Name another folder."
            )
        state: dict[str, Any] = found["state"]
        return state
