"""Where the runs of a command are run: processes of this machine, or Ray."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from tikhon.core.errors import TikhonError
from tikhon.data.names import unknown
from tikhon.studies.cells import RunCells
from tikhon.studies.workers import run_cells

LOCAL, RAY = "local", "ray"


def chosen_engine(name: str, address: str | None, jobs: int) -> AbstractContextManager[RunCells]:
    """What runs cells, once it is entered; what cannot be is refused at once.

    jobs: how many run at a time, for which a Ray of our own needs the room.
    """
    if name not in (LOCAL, RAY):
        raise unknown("engine", name, (LOCAL, RAY))
    if name == RAY:
        return _on_ray(_integration(), address, jobs)
    if address is not None:
        raise TikhonError("--address says where a Ray cluster is: add --engine ray, or leave it out.")
    return nullcontext(run_cells)


def _integration() -> Any:
    try:
        return importlib.import_module("tikhon.integrations.ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise TikhonError("--engine ray needs Ray: pip install 'tikhon[ray]'.") from error


@contextmanager
def _on_ray(integration: Any, address: str | None, jobs: int) -> Iterator[RunCells]:
    with integration.connected(address, cpus=jobs):
        yield integration.run_cells
