"""A recipe that finds its own strengths while the network trains, by the validation loss.

python examples/self_tuning.py
"""

import argparse

import torch

import tikhon as tk


def main(epochs: int) -> None:
    task = tk.data.load_task("digits", seed=0, label_noise=0.4)
    loader = torch.utils.data.DataLoader(
        tk.data.indexed(torch.utils.data.TensorDataset(task.train.inputs, task.train.target)), 128, shuffle=True
    )
    held_out = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(task.validation.inputs, task.validation.target), 128, shuffle=True
    )

    recipe = tk.Recipe(
        tk.ELR(strength=tk.Learned(0.3, low=0.03, high=10.0)), tk.L2(strength=tk.Learned(1e-4, low=1e-6, high=1e-1))
    )
    model = recipe.prepare(tk.data.build_model("mlp", task, seed=0), samples=len(task.train))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe.attach(optimizer, epochs=epochs)
    recipe.tune(held_out, every=5)

    for epoch in range(epochs):
        for index, inputs, target in loader:
            optimizer.zero_grad()
            recipe.loss(inputs, target, index=index).backward()
            optimizer.step()
        recipe.end_epoch()
        now = recipe.log()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1:3}  elr {now['elr/strength']:.3g}  l2 {now['l2/strength']:.3g}")

    model = recipe.export().eval()
    accuracy = float((model(task.test.inputs).argmax(1) == task.test.target).float().mean())
    print(f"test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    main(parser.parse_args().epochs)
