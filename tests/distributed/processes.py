"""Real processes on loopback, for tests of what several of them train together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

WORLD = 2


def together(work: Callable[..., Any], folder: Path, *arguments: Any, world: int = WORLD) -> list[Any]:
    """What `work(rank, *arguments)` returned in each of `world` processes that form a gloo group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_process, (work, folder, port, world, arguments), nprocs=world)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _process(
    rank: int, work: Callable[..., Any], folder: Path, port: int, world: int, arguments: tuple[Any, ...]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(minutes=3))
    try:
        torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()
    # Threads of the group may outlive it, and now and then they abort an interpreter that takes itself down.
    os._exit(0)
