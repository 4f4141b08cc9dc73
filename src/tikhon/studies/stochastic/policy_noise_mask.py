"""Does pretraining under learned masks, fine-tuned on clean images, beat plain training and masks that do not learn?"""

from __future__ import annotations

import torch
from torch import nn

from tikhon.core.fit import batches
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, build_model, load_task
from tikhon.methods.stochastic.policy_noise_mask import POLICY, PolicyNoiseMask
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS = 100


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on 300 digits; the last tenth of the epochs on clean images where masks were used.

    Measures: metric (test accuracy), gap (train less test), validation.
    """
    task = load_task("digits", seed=seed, train_size=300)
    model = build_model("cnn", task, seed=seed)
    recipe = Recipe(*([PolicyNoiseMask()] if settings["masks"] else []), seed=seed)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"], momentum=0.9)
    recipe.attach(optimizer, steps=EPOCHS * -(-len(task.train.target) // 64), epochs=EPOCHS)
    if settings["masks"] == "fixed":
        for name in POLICY:
            model.get_parameter(name).requires_grad_(False)
    best, kept = -1.0, model.state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("modules", seed))
        for epoch in range(EPOCHS):
            model.train()
            for _, x, y in batches(task.train.inputs, task.train.target, 64, seed, epoch):
                optimizer.zero_grad()
                recipe.loss(x, y).backward()
                optimizer.step()
            recipe.end_epoch()
            if settings["early_stopping"] and (reached := _accuracy(model, task.validation)) > best:
                best, kept = reached, {name: value.clone() for name, value in model.state_dict().items()}
            report((epoch + 1) / EPOCHS)
    if settings["early_stopping"]:
        model.load_state_dict(kept)
    train, validation, test = (_accuracy(model, split) for split in (task.train, task.validation, task.test))
    return {"metric": test, "gap": train - test, "validation": validation}


@torch.no_grad()
def _accuracy(model: nn.Module, split: Split) -> float:
    return float((model.eval()(split.inputs).argmax(1) == split.target).double().mean())


def arm(masks: str | None, early_stopping: bool = False) -> list[Settings]:
    return [{"masks": masks, "early_stopping": early_stopping, "learning_rate": rate} for rate in (0.02, 0.05)]


study = Study(
    question="Is a network that was pretrained under learned masks above plain training, and above masks drawn alike "
    "for every image all along?",
    setting="300 digits, convolutional network, 100 epochs, the last 10 on clean images, masks of 4x4 cells",
    run=run,
    arms={
        "none": arm(None),
        "early_stopping": arm(None, early_stopping=True),
        "fixed masks": arm("fixed"),
        "policy_noise_mask": arm("learned"),
    },
    expectations=[
        Expectation("policy_noise_mask", "none"),
        Expectation("policy_noise_mask", "fixed masks"),
    ],
)
