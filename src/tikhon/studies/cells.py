"""Cells, the training runs of a comparison or a study, and how any engine gets through them.

An engine is a function `RunCells`. What it owes its caller is written here once: cells come back in whatever order they
finish, a worker that dies costs its cell one repetition, an error names its cell. An engine adds a `Pool`, which says
where cells run: processes of this machine (`tikhon.studies.workers`), or a cluster.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from tikhon.core.errors import TikhonError

Cell = dict[str, Any]
Result = dict[str, Any]
Report = Callable[[float], None]
Function = Callable[[Cell, Report], Result]
Kind = Literal["started", "progress", "finished", "retried"]

_ATTEMPTS = 2


class Event(NamedTuple):
    """Progress of one cell. fraction: how much of its run is done, in [0, 1]."""

    kind: Kind
    cell: Cell
    fraction: float


class RunCells(Protocol):
    """Run `function(cell, report)` for every cell, `jobs` at a time, in whatever order they finish.

    cells: taken one at a time, when a worker is free, so that what is run may depend on what was found. None: no cell
    now, perhaps after the next result.
    function: importable by name (top level of a module). Calls `report(fraction)` as often as a progress bar needs.
    threads: of torch and of BLAS for each cell.
    on_result, on_event: called in this process, one at a time. An exception in them ends the workers and passes on.

    A worker that dies costs its cell one repetition in a fresh worker, with a "retried" event. Raises TikhonError when
    it dies again, naming the cell and how it died, and when `function` raises: a TikhonError keeps its message, others
    are named with their cell; the worker's traceback is the error's `__cause__`. Cells still running are then dropped.
    """

    def __call__(
        self,
        function: Function,
        cells: Iterable[Cell | None],
        *,
        jobs: int,
        on_result: Callable[[Cell, Result], None],
        threads: int = 1,
        on_event: Callable[[Event], None] | None = None,
    ) -> None: ...


# What workers say -----------------------------------------------------------------------------------------------------


class Started(NamedTuple):
    """The worker has the cell in hand."""


class Progress(NamedTuple):
    fraction: float


class Success(NamedTuple):
    result: Result


class Failure(NamedTuple):
    """An exception as text, because exceptions do not all survive pickling."""

    message: str
    is_tikhon_error: bool
    traceback: str


class Death(NamedTuple):
    """The worker is gone; said by its pool. how: as in "signal 9, Killed"."""

    how: str


Message = Started | Progress | Success | Failure | Death


@dataclass(eq=False)
class Task:
    """A cell on its way. payload: what `attempt` needs, pickled."""

    cell: Cell
    payload: bytes
    deaths: int = 0


class Pool(Protocol):
    """Where cells run."""

    def begin(self, task: Task) -> None:
        """Have a worker `attempt` the task."""

    def messages(self) -> Iterable[tuple[Task, Message]]:
        """What workers have said since, each in its order; waits until one has said something."""

    def end(self) -> None:
        """Stop whatever still runs."""


# Both ends ------------------------------------------------------------------------------------------------------------


def run_through(
    make_pool: Callable[[int], Pool],
    function: Function,
    cells: Iterable[Cell | None],
    *,
    jobs: int,
    on_result: Callable[[Cell, Result], None],
    threads: int = 1,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """`RunCells` on the pool that `make_pool(threads)` makes."""
    if jobs < 1 or threads < 1:
        raise TikhonError(f"jobs is {jobs} and threads is {threads}; both must be at least 1.")
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TikhonError(f"workers cannot import {function!r}: define it at the top level of a module.") from error

    def notify(kind: Kind, cell: Cell, fraction: float = 0.0) -> None:
        if on_event is not None:
            on_event(Event(kind, cell, fraction))

    coming = iter(cells)
    lost: list[Task] = []

    def next_task() -> Task | None:
        if lost:
            return lost.pop()
        cell = next(coming, None)
        return None if cell is None else Task(cell, pickle.dumps((function, cell)))

    pool: Pool | None = None
    busy = 0
    try:
        while True:
            while busy < jobs and (task := next_task()) is not None:
                pool = pool or make_pool(threads)
                pool.begin(task)
                busy += 1
            if pool is None or not busy:
                return
            for said, message in pool.messages():
                if isinstance(message, Started):
                    notify("started", said.cell)
                elif isinstance(message, Progress):
                    notify("progress", said.cell, message.fraction)
                elif isinstance(message, Failure):
                    raise _error(said.cell, message)
                elif isinstance(message, Death):
                    busy -= 1
                    said.deaths += 1
                    if said.deaths == _ATTEMPTS:
                        raise _death_error(said.cell, message)
                    lost.append(said)
                    notify("retried", said.cell)
                else:
                    busy -= 1
                    on_result(said.cell, message.result)
                    notify("finished", said.cell, 1.0)
    finally:
        if pool is not None:
            pool.end()


def attempt(payload: bytes, threads: int, send: Callable[[bytes], None]) -> None:
    """In a worker: run a task's payload and send what there is to say, pickled; last a `Success` or a `Failure`.

    What cannot be unpickled or pickled has failed too.
    """
    send(pickle.dumps(Started()))
    try:
        function, cell = pickle.loads(payload)
        if "torch" in sys.modules:  # every cell begins alike, whatever the one before has set
            sys.modules["torch"].set_num_threads(threads)
        result = function(cell, lambda fraction: send(pickle.dumps(Progress(float(fraction)))))
        last = pickle.dumps(Success(result))
    except BaseException as error:  # SystemExit too: a cell that calls sys.exit() has failed, not the worker
        message = str(error)
        if not isinstance(error, TikhonError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {message} ({place.filename}, line {place.lineno})"
        last = pickle.dumps(Failure(message, isinstance(error, TikhonError), traceback.format_exc()))
    send(last)


def environment(threads: int) -> dict[str, str]:
    """Variables that a worker needs before its interpreter and torch start, for results that are the same in each."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # Without this the order of a set of strings, and so perhaps a result, differs from worker to worker.
    return {**wanted, "PYTHONHASHSEED": "0"}


# Errors ---------------------------------------------------------------------------------------------------------------


class WorkerTraceback(Exception):
    """Where in the worker an error arose, as text: the `__cause__` of errors that engines pass on."""


def _name(cell: Cell) -> str:
    """The cell as its user knows it."""
    return ", ".join(f"{part} {cell[part]}" for part in ("arm", "seed") if part in cell) or repr(cell)


def _error(cell: Cell, failure: Failure) -> TikhonError:
    error = TikhonError(failure.message if failure.is_tikhon_error else f"{_name(cell)} failed with {failure.message}")
    error.__cause__ = WorkerTraceback(failure.traceback)
    return error


def _death_error(cell: Cell, death: Death) -> TikhonError:
    return TikhonError(
        f"the worker process of {_name(cell)} died twice ({death.how}). "
        "If memory ran out, use fewer --jobs, a smaller model or smaller batches; then run the same command again."
    )
