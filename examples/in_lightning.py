"""Digits with 40% wrong labels in Lightning: a callback, and one changed line in `training_step`.

python examples/in_lightning.py
python examples/in_lightning.py --processes 2
"""

import argparse

import lightning
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import tikhon as tk
from tikhon.integrations.lightning import RecipeCallback

BATCH = 128


class Classifier(lightning.LightningModule):
    def __init__(self, net, recipe):
        super().__init__()
        self.net = net
        self.regularised_loss = recipe.loss

    def training_step(self, batch, batch_idx):
        return self.regularised_loss(batch)  # in place of: F.cross_entropy(self.net(batch[1]), batch[2])

    def validation_step(self, batch, batch_idx):
        output = self.net(batch[0])
        self.log("loss", F.cross_entropy(output, batch[1]), sync_dist=True)
        self.log("accuracy", (output.argmax(1) == batch[1]).float().mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


def main(processes: int, epochs: int) -> None:
    task = tk.data.load_task("digits", seed=0, label_noise=0.4)
    train = tk.data.indexed(TensorDataset(task.train.inputs, task.train.target))
    test = TensorDataset(task.test.inputs, task.test.target)

    recipe = tk.Recipe(tk.ELR(), tk.MixUp())
    module = Classifier(tk.data.build_model("mlp", task, seed=0), recipe)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        callbacks=[RecipeCallback(recipe, at="net", samples=len(train))],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(train, BATCH // processes, shuffle=True), DataLoader(test, BATCH))

    if trainer.is_global_zero:
        finished = recipe.export().eval()
        accuracy = (finished(task.test.inputs).argmax(1) == task.test.target).float().mean()
        print(f"test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    main(given.processes, given.epochs)
