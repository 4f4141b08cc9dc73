"""A training that is killed again and again ends with the weights of one that was not."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import tikhon

KILLS, EPOCHS = 50, 60
MOMENTS = {
    "batch", "remember", "targets", "terms", "around", "parameter_terms", "gradients", "after_step", "averages",
}  # fmt: skip


def recipe(seed: int) -> tikhon.Recipe:
    """One that acts in every moment and remembers in every way."""
    return tikhon.Recipe(
        tikhon.ELR(strength=tikhon.linear(0.0, 3.0)),
        tikhon.MixUp(),
        tikhon.PSKD(),
        tikhon.L2(1e-3),
        tikhon.SAM(),
        tikhon.EMA(decay=0.9),
        tikhon.PerpGrad(),
        tikhon.GroupSparseEnvelope(strength=0.01),
        seed=seed,
    )


def train(folder: Path | None, seed: int) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    inputs = torch.randn(48, 5)
    model = nn.Sequential(
        nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    trained, _ = tikhon.fit(
        model,
        recipe(seed),
        (inputs, inputs[:, :3].argmax(1)),
        epochs=EPOCHS,
        batch_size=16,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        metrics={"loss": lambda one: float(one(inputs).logsumexp(1).mean())},
        keep_best="loss",
        seed=seed,
        checkpoint=folder,
    )
    return trained.state_dict()


def begun(folder: Path, seed: int) -> int:
    """A process of its own that trains on from what is in the folder, and leaves the weights there at its end."""
    child = os.fork()
    if child == 0:
        try:
            torch.save(train(folder, seed), folder / "finished.new")
            (folder / "finished.new").rename(folder / "finished.pt")
        finally:
            os._exit(0)
    return child


def test_the_recipe_uses_every_moment() -> None:
    said = recipe(0).explain()
    assert all(f"{moment} " in said for moment in MOMENTS - {"averages"})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, so that each need not import torch")
def test_fifty_kills_change_nothing(tmp_path) -> None:
    draw, kills, seed = random.Random(0), 0, 0
    while kills < KILLS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        killed = 0
        while not (folder / "finished.pt").exists():
            killed += killed_in_time(begun(folder, seed), folder, draw)
        found, expected = torch.load(folder / "finished.pt", weights_only=True), train(None, seed)
        for name, value in expected.items():
            assert torch.equal(found[name], value), f"{name} after {killed} kills"
        kills, seed = kills + killed, seed + 1


def killed_in_time(child: int, folder: Path, draw: random.Random) -> bool:
    """Kill the process at a random moment, half of the time only after it has come further; False if it ended first."""
    last = folder / "last.pt"
    before = last.stat().st_mtime_ns if last.exists() else 0
    if draw.random() < 0.5:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if last.exists() and last.stat().st_mtime_ns > before:
                break
            time.sleep(0.002)
        else:
            return False
    time.sleep(draw.uniform(0.0, 0.2))
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])
