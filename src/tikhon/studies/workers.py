"""A small pool of worker processes for training runs: crashes cost one repetition, and no worker outlives its parent.

The standard library's `ProcessPoolExecutor` gives up altogether when one worker dies; training runs do die, of memory
above all, and hours of other runs must not go with them. Workers are spawned, not forked, so that they are alike on all
systems and start without the parent's threads; they persist over cells, because importing torch costs seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, NamedTuple

from tikhon.core.errors import TikhonError

Cell = dict[str, Any]
Result = dict[str, Any]
Report = Callable[[float], None]

_SPAWN = multiprocessing.get_context("spawn")
_ATTEMPTS = 2


class Event(NamedTuple):
    """Progress of one cell. fraction: how much of its run is done, in [0, 1]."""

    kind: Literal["started", "progress", "finished", "retried"]
    cell: Cell
    fraction: float


def run_cells(
    function: Callable[[Cell, Report], Result],
    cells: Iterable[Cell],
    *,
    jobs: int,
    on_result: Callable[[Cell, Result], None],
    threads: int = 1,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """Run `function(cell, report)` for every cell in `jobs` worker processes, in whatever order they finish.

    function: importable by name (top level of a module). Calls `report(fraction)` as often as a progress bar needs.
        It may print (to standard error, wherever it prints) but not start `multiprocessing` children of its own.
    threads: of torch and of BLAS in each worker.
    on_result, on_event: called in this process, one at a time. An exception in them ends the workers and passes on.

    A worker that dies costs its cell one repetition in a fresh worker, with a "retried" event. Raises TikhonError when
    it dies again, naming the cell and how it died, and when `function` raises: a TikhonError keeps its message, others
    are named with their cell; the worker's traceback is the error's `__cause__`. Cells still running are then dropped.
    """
    if jobs < 1 or threads < 1:
        raise TikhonError(f"jobs is {jobs} and threads is {threads}; both must be at least 1.")
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TikhonError(f"workers cannot import {function!r}: define it at the top level of a module.") from error

    def notify(kind: Literal["started", "progress", "finished", "retried"], cell: Cell, fraction: float = 0.0) -> None:
        if on_event is not None:
            on_event(Event(kind, cell, fraction))

    waiting = deque(_Task(cell) for cell in cells)
    idle: list[_Worker] = []
    busy: dict[Any, tuple[_Worker, _Task]] = {}  # by connection, whose class differs between systems
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _Worker(threads)
                task = waiting.popleft()
                busy[worker.connection] = worker, task
                worker.begin(function, task.cell)
                notify("started", task.cell)
            for connection in wait(list(busy)):
                worker, task = busy[connection]
                message = worker.receive()
                if isinstance(message, _Progress):
                    notify("progress", task.cell, message.fraction)
                    continue
                if isinstance(message, _Failure):
                    raise _error(task.cell, message)
                del busy[worker.connection]
                if isinstance(message, _Death):
                    task.deaths += 1
                    if task.deaths == _ATTEMPTS:
                        raise _death_error(task.cell, message)
                    waiting.appendleft(task)
                    notify("retried", task.cell)
                else:
                    idle.append(worker)
                    on_result(task.cell, message.result)
                    notify("finished", task.cell, 1.0)
    finally:
        for worker, _ in busy.values():
            worker.process.kill()
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


@dataclass
class _Task:
    cell: Cell
    deaths: int = 0


class _Progress(NamedTuple):
    fraction: float


class _Success(NamedTuple):
    result: Result


class _Failure(NamedTuple):
    """An exception as text, because exceptions do not all survive pickling."""

    message: str
    is_tikhon_error: bool
    traceback: str


class _Death(NamedTuple):
    exit_code: int | None


class WorkerTraceback(Exception):
    """Where in the worker an error arose, as text: the `__cause__` of errors that `run_cells` passes on."""


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        # daemon: should this process end without the clean-up of run_cells, multiprocessing still ends the worker.
        self.process = _SPAWN.Process(target=_serve, args=(theirs, threads), daemon=True)
        with _workers_environment(threads):
            self.process.start()
        theirs.close()

    def begin(self, function: Callable[[Cell, Report], Result], cell: Cell) -> None:
        with suppress(OSError):  # a dead worker: `receive` will find and report it
            self.connection.send((function, cell))

    def receive(self) -> _Progress | _Success | _Failure | _Death:
        try:
            message: _Progress | _Success | _Failure = self.connection.recv()
            return message
        except (EOFError, OSError):
            self.end()
            return _Death(self.process.exitcode)

    def end(self) -> None:
        """Hang up, which an idle worker takes as its leave, and wait until it is gone."""
        self.connection.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def _workers_environment(threads: int) -> Iterator[None]:
    """What a process started inside inherits. It must be there before the interpreter and torch start."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # Without this the order of a set of strings, and so perhaps a result, differs from worker to worker.
    wanted["PYTHONHASHSEED"] = "0"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    # Ctrl-C reaches every process of the terminal. This one alone answers it; a worker that is still importing must not
    # print a traceback. The mask is inherited; starting the tracker would lift it, so that is done first.
    if sys.platform != "win32":
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(connection: Connection[Any, Any], threads: int) -> None:
    """The life of a worker: cells come in, results go out, until the parent hangs up or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Standard output belongs to the parent (`--json` promises one object there): what a cell prints goes beside it.
    os.dup2(2, 1)
    with suppress(EOFError, OSError):  # the parent hung up
        while True:
            connection.send_bytes(_attempt(connection.recv_bytes(), connection, threads))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # at once, whatever the main thread is computing: nobody is left to want it


def _attempt(task: bytes, connection: Connection[Any, Any], threads: int) -> bytes:
    """Run a pickled (function, cell) and pickle what came of it. What cannot be unpickled or pickled has failed too."""
    try:
        function, cell = pickle.loads(task)
        if "torch" in sys.modules:  # every cell begins alike, whatever the one before has set
            sys.modules["torch"].set_num_threads(threads)
        return pickle.dumps(_Success(function(cell, lambda fraction: connection.send(_Progress(float(fraction))))))
    except BaseException as error:  # SystemExit too: a cell that calls sys.exit() has failed, not the worker
        message = str(error)
        if not isinstance(error, TikhonError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {message} ({place.filename}, line {place.lineno})"
        return pickle.dumps(_Failure(message, isinstance(error, TikhonError), traceback.format_exc()))


def _name(cell: Cell) -> str:
    """The cell as its user knows it."""
    return ", ".join(f"{part} {cell[part]}" for part in ("arm", "seed") if part in cell) or repr(cell)


def _error(cell: Cell, failure: _Failure) -> TikhonError:
    error = TikhonError(failure.message if failure.is_tikhon_error else f"{_name(cell)} failed with {failure.message}")
    error.__cause__ = WorkerTraceback(failure.traceback)
    return error


def _death_error(cell: Cell, death: _Death) -> TikhonError:
    code = death.exit_code
    how = f"signal {-code}, {signal.strsignal(-code)}" if code is not None and code < 0 else f"exit code {code}"
    return TikhonError(
        f"the worker process of {_name(cell)} died twice ({how}). "
        "If memory ran out, use fewer --jobs, a smaller model or smaller batches; then run the same command again."
    )
