"""Two ways to the same answer, timed in turn: ours and a peer's."""

from __future__ import annotations

import gc
import platform
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from tikhon.studies.cost import block, enough, peak_of

ROUNDS = 11, 400
"""At least and at most so many rounds, each a block of ours beside a block of theirs."""
BUSY_CORES = 0.25
"""What other processes may keep busy before a time means nothing."""


@dataclass(frozen=True)
class Pair:
    """What one case compares.

    Both calls do the whole work on the same inputs and return their answer: a tensor, or a tuple of them. same: whether
    the answers agree; without it, they are compared to a relative `tolerance` of the largest value.
    numpy: one side computes in NumPy, so that its memory is counted there; else tensors are counted.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tolerance: float = 1e-5
    same: Callable[[], bool] | None = None
    numpy: bool = False

    def agree(self) -> bool:
        if self.same is not None:
            return self.same()
        ours, theirs = _flat(self.ours()), _flat(self.theirs())
        if len(ours) != len(theirs):
            raise ValueError(f"ours has {len(ours)} answers, theirs {len(theirs)}.")
        return all(_close(mine, other, self.tolerance) for mine, other in zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Case:
    """One comparison. peer: the distribution that answers beside us; note: what a reader of the table has to know;
    limit: the target, of our time over the peer's."""

    name: str
    peer: str
    pair: Callable[[], Pair]
    note: str = ""
    limit: float = 1.0


_cases: list[Case] = []


def case(
    name: str, *, peer: str, note: str = "", limit: float = 1.0
) -> Callable[[Callable[[], Pair]], Callable[[], Pair]]:
    """Make the function below, which builds inputs and both calls, a case of the table."""

    def keep(pair: Callable[[], Pair]) -> Callable[[], Pair]:
        if any((one.name, one.peer) == (name, peer) for one in _cases):
            raise ValueError(f"there are two cases {name!r} with the peer {peer}.")
        _cases.append(Case(name, peer, pair, note, limit))
        return pair

    return keep


def cases() -> list[Case]:
    """Those of the files that are imported, in the order of their lines."""
    return list(_cases)


class Busy(Exception):
    """Other processes use the machine."""


def measure(one: Case, seconds: float, refuse: bool = True) -> dict[str, Any]:
    """A row of the table: ours over theirs in time (median of the rounds, 10th and 90th percentile) and in memory.

    seconds: how long to take turns. Raises `Busy` when other processes kept more than a quarter of a core busy, unless
    told not to refuse.
    """
    torch.manual_seed(0)
    pair = one.pair()
    same = pair.agree()
    memory = _memory(pair.ours, pair.numpy) / max(1, _memory(pair.theirs, pair.numpy))
    with Load() as load:
        ours, theirs = _in_turn(pair, seconds)
    if refuse and load.others > BUSY_CORES:
        raise Busy(f"other processes kept {load.others:.2f} cores busy.")
    ratios = ours / theirs
    low, middle, high = np.percentile(ratios, (10, 50, 90))
    return {
        "case": one.name,
        "peer": one.peer,
        "peer_version": version(one.peer),
        "ratio": round(float(middle), 3),
        "ratio_low": round(float(low), 3),
        "ratio_high": round(float(high), 3),
        "limit": one.limit,
        "memory_ratio": round(memory, 3),
        "same_answer": same,
        "microseconds": round(float(np.median(ours) * 1e6), 1),
        "rounds": len(ratios),
        "load": round(load.others, 2),
        "note": one.note,
        "machine": machine(),
    }


def _in_turn(pair: Pair, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds a call of both, one entry a round; who goes first changes from round to round."""
    calls = [enough(pair.ours), enough(pair.theirs)]
    rounds: list[tuple[float, float]] = []
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while len(rounds) < ROUNDS[0] or (time.perf_counter() < end and len(rounds) < ROUNDS[1]):
            if len(rounds) % 2:
                theirs, ours = block(pair.theirs, calls[1]), block(pair.ours, calls[0])
            else:
                ours, theirs = block(pair.ours, calls[0]), block(pair.theirs, calls[1])
            rounds.append((ours, theirs))
            gc.collect(0)  # outside the times, and alike for both
    finally:
        gc.enable()
    mine, others = zip(*rounds, strict=True)
    return np.array(mine), np.array(others)


def _memory(call: Callable[[], Any], numpy: bool) -> int:
    """Bytes that one call holds at most, beside what was there before."""
    if not numpy:
        return peak_of(call)
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return peak_of(call) + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Load:
    """How many cores the processes of others kept busy while the block ran."""

    others: float = 0.0

    def __enter__(self) -> Load:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        wall, busy, own = (now - before for now, before in zip(self._now(), self._before, strict=True))
        self.others = max(0.0, busy - own) / wall

    @staticmethod
    def _now() -> tuple[float, float, float]:
        total, mine = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = total.idle + getattr(total, "iowait", 0.0)
        return time.perf_counter(), sum(total[:8]) - idle, mine.user + mine.system


def wait_until_quiet(patience: float) -> None:
    """Return when other processes rest; `Busy` when they do not within so many seconds."""
    end = time.perf_counter() + patience
    while True:
        with Load() as load:
            time.sleep(1.0)
        if load.others <= BUSY_CORES:
            return
        if time.perf_counter() > end:
            raise Busy(f"other processes keep {load.others:.2f} cores busy.")


def undisturbed(take: Callable[[], dict[str, Any]], patience: float) -> dict[str, Any]:
    """What `take` measures on a quiet machine, again where its first try was disturbed; else `Busy`."""
    wait_until_quiet(patience)
    try:
        return take()
    except Busy:
        wait_until_quiet(patience)
        return take()


def machine() -> str:
    """What the numbers depend on, in a line."""
    return (
        f"{_processor()}, {psutil.cpu_count()} cores, one thread; {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _flat(answer: Any) -> list[torch.Tensor]:
    if isinstance(answer, (list, tuple)):
        return [tensor for one in answer for tensor in _flat(one)]
    return [torch.as_tensor(answer).detach()]


def _close(mine: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    mine, other = mine.double(), other.double()
    if mine.shape != other.shape:
        return False
    if not (torch.isfinite(mine).all() and torch.isfinite(other).all()):
        return False
    if not other.numel():
        return True
    return float((mine - other).abs().max()) <= tolerance * max(1e-30, float(other.abs().max()))
