"""The embedded engine: a small pool of processes on this machine, none of which outlives its parent.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from tikhon.studies.cells import (
    Cell,
    Death,
    Event,
    Failure,
    Function,
    Message,
    Result,
    Success,
    Task,
    attempt,
    environment,
    run_through,
)

_SPAWN = multiprocessing.get_context("spawn")


def run_cells(
    function: Function,
    cells: Iterable[Cell | None],
    *,
    jobs: int,
    on_result: Callable[[Cell, Result], None],
    threads: int = 1,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """Run cells in `jobs` processes of this machine, as `RunCells` says.

    function: may print (to standard error, wherever it prints) but not start `multiprocessing` children of its own.
    """
    run_through(_Processes, function, cells, jobs=jobs, on_result=on_result, threads=threads, on_event=on_event)


class _Processes:
    """A `Pool` of worker processes, started when first needed."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._idle: list[_Worker] = []
        self._busy: dict[Any, tuple[_Worker, Task]] = {}  # by connection, whose class differs between systems

    def begin(self, task: Task) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self._threads)
        self._busy[worker.connection] = worker, task
        worker.begin(task.payload)

    def messages(self) -> Iterator[tuple[Task, Message]]:
        for connection in wait(list(self._busy)):
            worker, task = self._busy[connection]
            message = worker.receive()
            if isinstance(message, Success | Failure | Death):
                del self._busy[connection]
                if not isinstance(message, Death):
                    self._idle.append(worker)
            yield task, message

    def end(self) -> None:
        busy = [worker for worker, _ in self._busy.values()]
        for worker in busy:
            worker.process.kill()
        for worker in [*self._idle, *busy]:
            worker.end()


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        # daemon: should this process end without the clean-up of run_cells, multiprocessing still ends the worker.
        self.process = _SPAWN.Process(target=_serve, args=(theirs, threads), daemon=True)
        with _workers_environment(threads):
            self.process.start()
        theirs.close()

    def begin(self, payload: bytes) -> None:
        with suppress(OSError):  # a dead worker: `receive` will find and report it
            self.connection.send_bytes(payload)

    def receive(self) -> Message:
        try:
            message: Message = pickle.loads(self.connection.recv_bytes())
            return message
        except (EOFError, OSError):
            self.end()
            return Death(_how(self.process.exitcode))

    def end(self) -> None:
        """Hang up, which an idle worker takes as its leave, and wait until it is gone."""
        self.connection.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _how(code: int | None) -> str:
    return f"signal {-code}, {signal.strsignal(-code)}" if code is not None and code < 0 else f"exit code {code}"


@contextmanager
def _workers_environment(threads: int) -> Iterator[None]:
    """What a process started inside inherits. It must be there before the interpreter and torch start."""
    wanted = environment(threads)
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
            attempt(connection.recv_bytes(), threads, connection.send_bytes)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # at once, whatever the main thread is computing: nobody is left to want it
