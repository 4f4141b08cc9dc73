"""MNIST images with 40% wrong labels: trained to the end, stopped early, and with early-learning regularisation.

python examples/noisy_mnist.py
"""

import argparse

import torch

import tikhon as tk


def main(epochs: int, train_size: int) -> None:
    task = tk.data.load_task("mnist5k", seed=0, label_noise=0.4, train_size=train_size)
    wrong = task.train.target != task.clean_target
    print(f"{len(task.train)} images, {int(wrong.sum())} of them with a wrong label")

    def accuracy(model, split):
        return float((model(split.inputs).argmax(1) == split.target).float().mean())

    # Validation labels are as wrong as those of training; the order of epochs survives that.
    arms = {"to the end": ([], None), "stopped early": ([], "validation"), "ELR": ([tk.ELR(strength=3.0)], None)}
    for name, (methods, keep_best) in arms.items():
        model, _ = tk.fit(
            tk.data.build_model("cnn", task, seed=0),
            tk.Recipe(*methods),
            (task.train.inputs, task.train.target),
            epochs=epochs,
            batch_size=64,
            optimizer=lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9),
            metrics={"validation": lambda model: accuracy(model, task.validation)},
            keep_best=keep_best,
        )
        with torch.no_grad():
            memorised = (model(task.train.inputs).argmax(1) == task.train.target)[wrong].float().mean()
            print(f"{name:14} test accuracy {accuracy(model, task.test):.3f}, wrong labels memorised {memorised:.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--train-size", type=int, default=1000)
    given = parser.parse_args()
    main(given.epochs, given.train_size)
