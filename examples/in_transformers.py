"""Digits with 40% wrong labels in Hugging Face's Trainer: `RecipeTrainer` in place of `Trainer`.

python examples/in_transformers.py
torchrun --nproc-per-node 2 examples/in_transformers.py
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, TrainingArguments

import tikhon as tk
from tikhon.integrations.transformers import RecipeTrainer


class Classifier(nn.Module):
    """A model as Hugging Face writes them; one of theirs needs nothing of this."""

    def __init__(self, net):
        super().__init__()
        self.net, self.config = net, PretrainedConfig()

    def forward(self, pixels, labels=None, **kwargs):
        logits = self.net(pixels)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset):
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, number):
        return {"pixels": self.split.inputs[number], "labels": self.split.target[number]}


def main(epochs: int) -> None:
    task = tk.data.load_task("digits", seed=0, label_noise=0.4)
    train = tk.data.indexed(Rows(task.train))

    trainer = RecipeTrainer(
        Classifier(tk.data.build_model("mlp", task, seed=0)),
        TrainingArguments(
            "trained",
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            learning_rate=0.1,
            remove_unused_columns=False,  # the samples' numbers are such a column
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=train,
        eval_dataset=Rows(task.test),
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        recipe=tk.Recipe(tk.ELR(), tk.MixUp(), target="labels", output="logits"),
        samples=len(train),
    )
    trainer.train()

    finished = trainer.recipe.export().cpu().eval()
    accuracy = (finished(task.test.inputs)["logits"].argmax(1) == task.test.target).float().mean()
    if trainer.is_world_process_zero():
        print(f"test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    main(parser.parse_args().epochs)
