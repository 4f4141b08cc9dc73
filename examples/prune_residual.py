"""A residual network on MNIST trained once to a third of its units, exported smaller, and saved.

python examples/prune_residual.py
python examples/prune_residual.py --out pruned.pt
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn

import tikhon as tk


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return torch.relu(x + self.inner(x))


def network(channels=24):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Block(channels),
        Block(channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


def size_and_time(model, images):
    model.eval()
    with torch.no_grad():
        model(images)
        begun = time.perf_counter()
        model(images)
    return sum(one.numel() for one in model.parameters()), time.perf_counter() - begun


def main(epochs: int, train_size: int, out: Path | None) -> None:
    task = tk.data.load_task("mnist5k", seed=0, train_size=train_size)
    images = {name: getattr(task, name).inputs.reshape(-1, 1, 28, 28) for name in ("train", "test")}
    warm_up = tk.stepwise(
        {0.0: 0.0, 0.2: 3.0}
    )  # the most redundant units are chosen when it ends, and shrunk from then
    results = {}
    for name, methods in {"plain": (), "pruned": (tk.DHSPG(remove=0.67, strength=warm_up),)}.items():
        model, _ = tk.fit(
            network(),
            tk.Recipe(*methods),
            (images["train"], task.train.target),
            epochs=epochs,
            batch_size=32,
            optimizer=lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9),
        )
        numbers, seconds = size_and_time(model, images["test"])
        with torch.no_grad():
            accuracy = float((model(images["test"]).argmax(1) == task.test.target).float().mean())
        results[name] = (model, numbers, seconds)
        print(f"{name:6} test accuracy {accuracy:.3f}, {numbers:,} parameters, {1e3 * seconds:.0f} ms for the test set")
    (_, before, slow), (model, after, quick) = results["plain"], results["pruned"]
    print(f"{after / before:.0%} of the parameters and {quick / slow:.0%} of the time are left")
    if out is not None:
        torch.save(model, out)  # an ordinary module: no tikhon is needed to load it
        print(f"saved as {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train-size", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    main(given.epochs, given.train_size, given.out)
