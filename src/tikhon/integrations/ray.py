"""Ray: an engine for sweeps beyond one machine, with the results of the embedded one to the bit.

    with connected("auto", cpus=64):
        run_cells(function, cells, jobs=64, on_result=store.put)

Each cell is a Ray task that streams what it has to say: that it began, how far it is, its result. Streams need neither
an actor nor a queue beside the tasks, and keep the order; Ray's Client (`ray://`) does not have them.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
import platform
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

import tikhon
from tikhon.core.errors import TikhonError
from tikhon.studies.cells import (
    Cell,
    Death,
    Event,
    Failure,
    Function,
    Message,
    Progress,
    Result,
    Started,
    Task,
    attempt,
    environment,
    run_through,
)


@contextmanager
def connected(address: str | None = None, *, cpus: int) -> Iterator[None]:
    """Inside, there is a Ray to run on: the caller's if it has one, else that at `address`, else one of our own.

    address: "auto" or HOST:PORT of a cluster that this machine belongs to; RAY_ADDRESS where it is None. cpus: how many
    a Ray of our own, on this machine, offers. What was started here ends here, and only that.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise TikhonError(
            f"{address} is an address for Ray's Client, which cannot stream progress. Run the command on a machine of "
            "the cluster with --address auto, or send it there: ray job submit -- tikhon compare ... --engine ray."
        )
    # What cells print stays in Ray's own logs: forwarded, it would go to standard output.
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address == "local" else {}
    try:
        if ":" in address:  # asked first, because Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10.0).close()
        with _no_usage_statistics():
            ray.init(address, **own, **quiet)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise TikhonError(
            f"There is no Ray cluster to join at {address!r} ({error}). "
            "`ray start --head` starts one; without --address, Ray runs on this machine alone."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def run_cells(
    function: Function,
    cells: Iterable[Cell | None],
    *,
    jobs: int,
    on_result: Callable[[Cell, Result], None],
    threads: int = 1,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """Run cells on Ray, `jobs` at a time, as `RunCells` says: each a task of `threads` CPUs.

    Without `connected` around it, on a Ray of its own. A cell that waits for a free CPU has not "started" yet. What
    `function` prints is in Ray's logs. Refused: machines with another tikhon or torch than this one.
    """
    # Ray prints that a machine died to standard output, which is the command's (`--json` promises one object there).
    with connected(cpus=max(1, jobs * threads)), redirect_stdout(sys.stderr):
        run_through(_Tasks, function, cells, jobs=jobs, on_result=on_result, threads=threads, on_event=on_event)


class _Tasks:
    """A `Pool` of Ray tasks. Ray keeps the worker processes, and they persist over cells."""

    def __init__(self, threads: int) -> None:
        self._run = ray.remote(_serve).options(
            num_cpus=threads,
            num_returns="streaming",
            max_retries=0,  # repetitions are counted, and told, by run_through
            runtime_env={"env_vars": environment(threads)},
        )
        self._given = (threads, Path.cwd(), sys.path, versions())
        self._busy: dict[Any, Task] = {}

    def begin(self, task: Task) -> None:
        self._busy[self._run.remote(task.payload, *self._given)] = task

    def messages(self) -> Iterator[tuple[Task, Message]]:
        ready: list[Any] = ray.wait(list(self._busy), num_returns=1)[0]
        for stream in ready:
            try:
                message: Message = pickle.loads(ray.get(next(stream)))
            except (RayTaskError, RuntimeEnvSetupError) as error:  # no death: it would happen again
                message = Failure(str(error).strip().splitlines()[-1], False, str(error))
            except RayError as error:
                message = Death(str(error).splitlines()[0])
            task = self._busy[stream] if isinstance(message, Started | Progress) else self._busy.pop(stream)
            yield task, message

    def end(self) -> None:
        for stream in self._busy:
            ray.cancel(stream, force=True)


def _serve(payload: bytes, threads: int, folder: Path, path: Sequence[str], given: dict[str, str]) -> Iterator[bytes]:
    """In a worker of Ray: what `attempt` has to say, as it says it."""
    try:
        refuse_other_versions(given)
    except TikhonError as error:
        yield pickle.dumps(Failure(str(error), True, ""))
        return
    # Importable as for the embedded engine's workers, on every machine that has these folders too.
    with suppress(OSError):
        os.chdir(folder)
    sys.path.extend(one for one in path if one not in sys.path)
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def work() -> None:
        attempt(payload, threads, said.put)
        said.put(None)

    threading.Thread(target=work, daemon=True).start()
    while (message := said.get()) is not None:
        yield message


def refuse_other_versions(given: Mapping[str, str]) -> None:
    """In a worker: this machine must have what the command has, `versions()`."""
    if versions() != given:
        ours = ", ".join(f"{name} {versions()[name]}" for name in given)
        theirs = ", ".join(f"{name} {number}" for name, number in given.items())
        raise TikhonError(
            f"The machine {platform.node()} has {ours}; the command was given where there is {theirs}. "
            "The same numbers need the same versions: install them on every machine of the cluster."
        )


@functools.cache
def versions() -> dict[str, str]:
    """What the numbers rest on. tikhon by its sources, since a checkout changes without a new version."""
    package = Path(tikhon.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return {"tikhon": f"{tikhon.__version__} ({digest.hexdigest()[:12]})", "torch": version("torch")}


@contextmanager
def _no_usage_statistics() -> Iterator[None]:
    """Ray reports how it is used unless it is told before it starts; whoever has told it otherwise is left alone."""
    name = "RAY_USAGE_STATS_ENABLED"
    told = name in os.environ
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if not told:
            del os.environ[name]
