"""A torchvision and a timm model with a recipe, as these packages build them, on upscaled digits.

    python examples/vision_models.py
    python examples/vision_models.py --epochs 2

Needs torchvision and timm beside a torch that fits them; `make vision` builds such an environment.
"""

import argparse

import timm
import torch
import torchvision
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import tikhon as tk

SIDE, CLASSES = 32, 10


def build(name: str) -> torch.nn.Module:
    """Random weights, and the packages' own layers otherwise."""
    torch.manual_seed(0)
    if name == "resnet18":
        return torchvision.models.resnet18(num_classes=CLASSES)
    return timm.create_model(name, num_classes=CLASSES, img_size=SIDE, patch_size=8, depth=4)


def images(split: tk.data.Split) -> TensorDataset:
    """8 x 8 digits as colour images."""
    enlarged = F.interpolate(split.inputs, size=(SIDE, SIDE), mode="bilinear")
    return TensorDataset(enlarged.expand(-1, 3, -1, -1), split.target)


def recipe_for(name: str) -> tk.Recipe:
    methods = [tk.MixUp(alpha=0.2), tk.LabelSmoothing(0.1), tk.EMA(decay=0.9)]
    if name == "resnet18":
        methods.append(tk.OrthogonalConv(strength=1e-3, where="layer1"))
    return tk.Recipe(*methods)


def main(name: str, epochs: int) -> None:
    task = tk.data.load_task("digits", seed=0, train_size=500)
    train, test = images(task.train), images(task.test)
    recipe = recipe_for(name)
    model = recipe.prepare(build(name))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    recipe.attach(optimizer, epochs=epochs)

    for _ in range(epochs):
        model.train()
        for inputs, target in DataLoader(train, 50, shuffle=True):
            optimizer.zero_grad()
            recipe.loss(inputs, target).backward()
            optimizer.step()
        recipe.end_epoch()

    finished = recipe.export().eval()
    build(name).load_state_dict(finished.state_dict())  # it is the package's own model again
    with torch.no_grad():
        found = torch.cat([finished(inputs).argmax(1) for inputs, _ in DataLoader(test, 100)])
    print(f"test accuracy of {name} {(found == test.tensors[1]).float().mean():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    for name in ("resnet18", "vit_tiny_patch16_224"):
        main(name, given.epochs)
