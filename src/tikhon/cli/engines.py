"""Where the runs of a command are run: processes of this machine, or Ray. And what searches: Optuna, or Ray Tune."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tikhon.core.errors import TikhonError
from tikhon.data.names import unknown
from tikhon.studies.cells import RunCells
from tikhon.studies.workers import run_cells
from tikhon.tuning.search import Engine, Search, Trial

LOCAL, RAY, OPTUNA = "local", "ray", "optuna"


def chosen_engine(name: str, address: str | None, jobs: int) -> AbstractContextManager[RunCells]:
    """What runs cells, once it is entered; what cannot be is refused at once.

    jobs: how many run at a time, for which a Ray of our own needs the room.
    """
    if name not in (LOCAL, RAY):
        raise unknown("engine", name, (LOCAL, RAY))
    if name == RAY:
        return _on_ray(_integration("ray", "--engine ray needs Ray: pip install 'tikhon[ray]'."), address, jobs)
    if address is not None:
        raise TikhonError("--address says where a Ray cluster is: add --engine ray, or leave it out.")
    return nullcontext(run_cells)


def chosen_search(name: str, storage: str | None, address: str | None, out: Path, owner: str, jobs: int) -> Engine:
    """What searches; what cannot be is refused at once. Arguments as of the integrations."""
    if name not in (OPTUNA, RAY):
        raise unknown("engine", name, (OPTUNA, RAY))
    url = storage or f"sqlite:///{(out / 'trials.db').resolve()}"
    optuna = _optuna()
    if name == OPTUNA:
        if address is not None:
            raise TikhonError("--address says where a Ray cluster is: add --engine ray, or leave it out.")
        return functools.partial(optuna.search, storage=url, owner=owner, jobs=jobs)
    try:
        ray_tune = importlib.import_module("tikhon.integrations.ray_tune")
    except ImportError as error:  # Ray itself, or what its Tune needs
        raise TikhonError("--engine ray needs Ray Tune: pip install 'tikhon[ray-tune]'.") from error
    return functools.partial(ray_tune.search, storage=url, owner=owner, address=address, jobs=jobs)


def importance(search: Search, trials: Sequence[Trial]) -> dict[str, float]:
    """How much each open place of the space decides, as far as that is known."""
    found: dict[str, float] = _optuna().importance(search, trials)
    return found


def _optuna() -> Any:
    return _integration("optuna", "A search needs Optuna: pip install 'tikhon[optuna]'.")


def _integration(name: str, missing: str) -> Any:
    try:
        return importlib.import_module(f"tikhon.integrations.{name}")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise TikhonError(missing) from error


@contextmanager
def _on_ray(integration: Any, address: str | None, jobs: int) -> Iterator[RunCells]:
    with integration.connected(address, cpus=jobs):
        yield integration.run_cells
