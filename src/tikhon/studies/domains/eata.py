"""Does EATA adapt to shifted data as well as Tent from fewer samples, and forget less of the clean data?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.losses import OutputLoss
from tikhon.core.parameters import select
from tikhon.core.passes import frozen_statistics
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import build_model, corruptions, load_task
from tikhon.math.entropy import softmax_entropy
from tikhon.methods.domains.eata import EATA
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS, PASSES, BATCH = 15, 6, 64


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train a CNN on clean digits, then adapt it to a stream of noisy, blurred and turned test digits, batch by batch.

    settings: method ("none", "tent" or "eata"), learning_rate and, of EATA, similarity and strength. Measures: metric
    (accuracy on the batches of the stream, each before its step; all arms predict with the batch's own statistics),
    clean (accuracy on the clean test data afterwards), used (share of the stream's samples with a gradient), validation
    (the metric on a stream of the validation data).
    """
    task = load_task("digits", seed=seed)
    model, _ = fit(
        build_model("cnn", task, seed=seed),
        Recipe(seed=seed),
        (task.train.inputs, task.train.target),
        epochs=EPOCHS,
        seed=seed,
    )
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for name, split in (("validation", task.validation), ("test", task.test)):
        model.load_state_dict(trained)
        stream = _stream(split.inputs, split.target, torch.Generator().manual_seed(seed_for(name, seed)))
        found[name], used = _adapted(model, stream, settings, task.train.inputs[:500])
        report(0.5 if name == "validation" else 1.0)
    clean = accuracy(_predicted(model, task.test.inputs), task.test.target)
    return {"metric": found["test"], "clean": clean, "used": used, "validation": found["validation"]}


def _stream(x: Tensor, y: Tensor, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Batches of one kind of shift after another, each kind `PASSES` times over the data."""
    shifts = [
        corruptions.gaussian_noise(x, 0.3, generator), corruptions.blur(x, 0.8), corruptions.rotate(x, 25.0),
    ]  # fmt: skip
    return [
        (shifted[rows], y[rows])
        for shifted in shifts
        for _ in range(PASSES)
        for rows in torch.randperm(len(y), generator=generator).split(BATCH)
        if len(rows) > BATCH // 2
    ]


def _adapted(
    model: nn.Module, stream: list[tuple[Tensor, Tensor]], settings: Settings, clean: Tensor
) -> tuple[float, float]:
    """The stream's accuracy and the share of samples that moved the model."""
    if settings["method"] == "none":
        return sum(accuracy(_predicted(model, x), y) * len(y) for x, y in stream) / sum(len(y) for _, y in stream), 0.0
    if settings["method"] == "tent":
        method, recipe = None, Recipe(base=OutputLoss(softmax_entropy))
    else:
        method = EATA(similarity=settings["similarity"], strength=settings["strength"])
        recipe = Recipe(method)
    model.train()
    recipe.prepare(model)
    norms = [one.leaf for one in select(model, "norms")]
    recipe.attach(optimizer := torch.optim.SGD(norms, lr=settings["learning_rate"], momentum=0.9))
    if method is not None:
        recipe.end_task(clean.split(250))
    right = used = total = 0.0
    for x, y in stream:
        right += accuracy(_predicted(model, x), y) * len(y)
        optimizer.zero_grad()
        recipe.loss(x).backward()
        optimizer.step()
        used += len(y) if method is None or method.kept is None else float(method.kept.sum())
        total += len(y)
    recipe.export()
    return right / total, used / total


@torch.no_grad()
def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    """Scores with the batch's own statistics, which the running ones do not see."""
    model.train()
    with frozen_statistics(model):
        output: Tensor = model(x)
    return output


def rates(*values: float, **arm: object) -> list[Settings]:
    """Candidates that differ in the learning rate."""
    return [{**arm, "learning_rate": rate} for rate in values]


study = Study(
    question="On a stream of shifted digits, is EATA more often right than the unadapted model and no worse than Tent, "
    "from fewer samples, and better on clean data afterwards?",
    setting="CNN trained 15 epochs on digits; noise, blur and rotation one after another, 6 times the test digits each",
    run=run,
    arms={
        "none": rates(0.0, 0.0, 0.0, method="none"),
        "tent": rates(0.01, 0.05, 0.2, method="tent"),
        "eata": rates(0.01, 0.05, 0.2, method="eata", similarity=0.4, strength=2000.0),
    },
    expectations=[
        Expectation("eata", "none"),
        Expectation("eata", "tent", margin=-0.01),
        Expectation("eata", "tent", "used", "lower"),
        Expectation("eata", "tent", "clean"),
    ],
)
