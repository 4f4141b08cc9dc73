"""What every framework trains: 96 samples, a small network, and a recipe that uses every moment."""

from __future__ import annotations

import torch
from torch import nn

import tikhon

SAMPLES, BATCH, EPOCHS = 96, 16, 3
RATE = 0.05


def recipe(**places):
    return tikhon.Recipe(
        tikhon.ELR(strength=tikhon.linear(0.0, 3.0)),
        tikhon.MixUp(),
        tikhon.L2(1e-3),
        tikhon.SAM(),
        tikhon.EMA(decay=0.9),
        tikhon.GroupSparseEnvelope(strength=0.01),
        seed=4,
        **places,
    )


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
        )


def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, 5, generator=generator)
    return inputs, inputs[:, :3].argmax(1)


def optimizer(parameters):
    return torch.optim.SGD(parameters, lr=RATE, momentum=0.9)


def loader():
    """(index, x, y) batches, the same order in every epoch and every framework."""
    dataset = tikhon.data.indexed(torch.utils.data.TensorDataset(*data()))
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(9)).tolist()
    return torch.utils.data.DataLoader(dataset, BATCH, sampler=order)


def overflowing() -> torch.amp.GradScaler:
    """A gradient scaler that begins so high that in float16 the first steps are skipped."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**22)


def plainly(accumulate: int = 1, epochs: int = EPOCHS, cast: torch.dtype | None = None):
    """The loop that everybody writes, under autocast to `cast`: the recipe and the trained model."""
    scaler = overflowing() if cast is torch.float16 else torch.amp.GradScaler("cpu", enabled=False)
    mine = recipe()
    model = mine.prepare(network(), samples=SAMPLES)
    chosen = optimizer(model.parameters())
    mine.attach(chosen, steps=epochs * SAMPLES // BATCH // accumulate, epochs=epochs)
    for _ in range(epochs):
        model.train()
        for micro, (index, x, y) in enumerate(loader()):
            with torch.autocast("cpu", cast, enabled=cast is not None):
                loss = mine.loss(x, y, index=index)
            scaler.scale(loss / accumulate).backward()
            if (micro + 1) % accumulate == 0:
                scaler.step(chosen)
                scaler.update()
                chosen.zero_grad()
        mine.end_epoch()
    return mine, model


def graphs() -> int:
    """How many graphs torch has compiled since it was last asked."""
    found: int = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return found


def same(one: nn.Module, other: nn.Module) -> None:
    """Both have the same weights and buffers, to the bit; a compiled one by the names of what was compiled."""
    mine, yours = getattr(one, "_orig_mod", one).state_dict(), other.state_dict()
    assert mine.keys() == yours.keys()
    for name, value in mine.items():
        assert torch.equal(value, yours[name]), f"{name} differs by {(value - yours[name]).abs().max()}"
