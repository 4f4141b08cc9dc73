"""Digits with 40% wrong labels with Accelerate, in one process or several.

python examples/in_accelerate.py
accelerate launch --cpu --num_processes 2 examples/in_accelerate.py
"""

import argparse

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import tikhon as tk
from tikhon.integrations.accelerate import attach

BATCH = 128


def main(epochs: int) -> None:
    accelerator = Accelerator()
    task = tk.data.load_task("digits", seed=0, label_noise=0.4)
    train = tk.data.indexed(TensorDataset(task.train.inputs, task.train.target))
    loader = DataLoader(train, BATCH // accelerator.num_processes, shuffle=True)

    recipe = tk.Recipe(tk.ELR(), tk.MixUp())
    model = recipe.prepare(tk.data.build_model("mlp", task, seed=0), samples=len(train))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    attach(accelerator, recipe, model, optimizer, epochs=epochs)

    for _ in range(epochs):
        for index, inputs, target in loader:
            optimizer.zero_grad()
            accelerator.backward(recipe.loss(inputs, target, index=index))
            optimizer.step()
        recipe.end_epoch()

    finished = recipe.export().cpu().eval()
    accuracy = (finished(task.test.inputs).argmax(1) == task.test.target).float().mean()
    accelerator.print(f"test accuracy {accuracy:.3f}")
    accelerator.end_training()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    main(parser.parse_args().epochs)
