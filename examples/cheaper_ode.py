"""A neural ODE that learns a flow which its solver crosses in fewer steps.

python examples/cheaper_ode.py
"""

import argparse

import torch
from torch import nn

import tikhon as tk


class Field(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width + 1, 64), nn.Tanh(), nn.Linear(64, width))

    def forward(self, t, y):
        return self.net(torch.cat([y, t[:, None]], dim=1))


def main(epochs: int) -> None:
    task = tk.data.load_task("digits", seed=0, train_size=600)
    flat = {name: getattr(task, name).inputs.flatten(1).double() for name in ("train", "test")}
    for name, methods in {"plain": (), "regularised": (tk.SolverHeuristicReg(strength=1.0),)}.items():
        torch.manual_seed(0)
        ode = tk.NeuralODE(Field(64), rtol=1e-6, atol=1e-6).double()
        model, _ = tk.fit(
            nn.Sequential(ode, nn.Linear(64, 10).double()),
            tk.Recipe(*methods),
            (flat["train"], task.train.target),
            epochs=epochs,
            optimizer=lambda weights: torch.optim.Adam(weights, lr=1e-2),
        )
        with torch.no_grad():
            accuracy = float((model(flat["test"]).argmax(1) == task.test.target).float().mean())
            evaluations = float(model[0].solve(flat["test"]).evaluations.double().mean())
        print(f"{name:12} test accuracy {accuracy:.3f}, {evaluations:.1f} evaluations of the field for a sample")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    main(parser.parse_args().epochs)
