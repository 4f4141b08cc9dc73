"""Digits whose predictions are proved: no change of any pixel by less than eps changes them.

python examples/certified_digits.py
"""

import argparse

import torch
from torch import nn

import tikhon as tk
from tikhon.methods.robust.ibp import ibp_initialise

PIXELS = (0.0, 1.0)


def main(epochs: int, eps: float) -> None:
    task = tk.data.load_task("digits", seed=0)
    images = {name: getattr(task, name).inputs.flatten(1) for name in ("train", "test")}
    methods = {
        "plain": (),
        "adversarial": (tk.AdversarialTraining(radius=eps, valid=PIXELS),),
        "certified": (tk.IBPTraining(eps=tk.linear(0.0, eps, over=(0.0, 0.25)), valid=PIXELS),),
    }
    for name, chosen in methods.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
        if name == "certified":
            ibp_initialise(model, torch.Generator().manual_seed(0))
        model, _ = tk.fit(
            model,
            tk.Recipe(*chosen),
            (images["train"], task.train.target),
            epochs=epochs,
            batch_size=32,
            optimizer=lambda weights: torch.optim.Adam(weights, lr=1e-3),
        )
        with torch.no_grad():
            clean = float((model(images["test"]).argmax(1) == task.test.target).float().mean())
        proved = tk.certified_accuracy(model, images["test"], task.test.target, eps, PIXELS)
        print(f"{name:12} right {clean:.3f}, right and proved within {eps:g} {proved:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--eps", type=float, default=0.05, help="of pixels in [0, 1]")
    given = parser.parse_args()
    main(given.epochs, given.eps)
