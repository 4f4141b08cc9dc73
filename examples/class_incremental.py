"""Digits, two classes at a time, by one network that must know all ten at the end: plainly, and with replay.

python examples/class_incremental.py
"""

import argparse

import torch

import tikhon as tk


def learn(task, methods, epochs):
    """Learn the pairs of classes in turn; returns the accuracy on all pairs so far after each."""
    recipe = tk.Recipe(*methods)
    model = recipe.prepare(tk.data.build_model("mlp", task, seed=0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    recipe.attach(optimizer)
    torch.manual_seed(0)
    seen = []
    for pair in range(5):
        own = (task.train.target // 2 == pair).nonzero()[:, 0]
        inputs, target = task.train.inputs[own], task.train.target[own]
        for _ in range(epochs):
            for rows in torch.randperm(len(own)).split(32):
                optimizer.zero_grad()
                recipe.loss(inputs[rows], target[rows]).backward()
                optimizer.step()
        recipe.end_task([(inputs, target)])  # what Replay keeps samples of
        known = task.test.target // 2 <= pair
        with torch.no_grad():
            right = model(task.test.inputs[known]).argmax(1) == task.test.target[known]
        seen.append(float(right.float().mean()))
    return seen


def main(epochs: int) -> None:
    task = tk.data.load_task("digits", seed=0)
    print("accuracy on all classes so far, after each pair")
    for name, methods in {"plain": (), "replay": (tk.Replay(),)}.items():
        print(f"{name:6}", *(f"{value:.3f}" for value in learn(task, methods, epochs)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="for each pair")
    main(parser.parse_args().epochs)
