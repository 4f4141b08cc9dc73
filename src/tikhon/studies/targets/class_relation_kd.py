"""Does class-relation distillation discover novel classes better than discovery alone?"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import batches, fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, build_model, load_task
from tikhon.math.sinkhorn import sinkhorn
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

KNOWN, CLASSES = 6, 10
PRETRAINING, EPOCHS, BATCH = 20, 30, 128
EPSILON = 0.05  # of the balanced assignment of novel samples, in units of the spread of their scores


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Learn digits 0 to 5, then discover the four others among unlabelled samples, with 0 to 5 still labelled.

    Novel samples get pseudo-labels by balanced assignment of another view of themselves. The best epoch by validation
    counts. Measures: metric and validation (share of the novel digits in the best matching of novel outputs with
    classes), known (accuracy on 0 to 5 among all outputs).
    """
    task = load_task("digits", seed=seed)
    train, validation, test = task.train, task.validation, task.test
    model, _ = fit(
        build_model("mlp", task, seed=seed),
        Recipe(seed=seed, output=lambda scores: scores[:, :KNOWN]),
        _of(train, novel=False),
        epochs=PRETRAINING,
        seed=seed,
    )
    recipe = Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"], momentum=0.9)
    recipe.attach(optimizer, epochs=EPOCHS)
    generator = torch.Generator().manual_seed(seed_for("views", seed))
    best: dict[str, float] = {}
    for epoch in range(EPOCHS):
        model.train()
        for _, inputs, labels in batches(train.inputs, train.target, BATCH, seed, epoch):
            if len(labels) < BATCH:
                continue  # too few to balance
            pseudo = _pseudo_labels(model, _view(inputs, generator), labels)
            optimizer.zero_grad()
            recipe.loss(_view(inputs, generator), pseudo).backward()
            optimizer.step()
        recipe.end_epoch()
        model.eval()
        with torch.no_grad():
            found = {"validation": _matched(model, validation), "metric": _matched(model, test)}
            known, labels = _of(test, novel=False)
            found["known"] = accuracy(model(known), labels)
        if not best or found["validation"] > best["validation"]:
            best = found
        report((epoch + 1) / EPOCHS)
    return best


def _of(split: Split, novel: bool) -> tuple[Tensor, Tensor]:
    rows = (split.target >= KNOWN) == novel
    return split.inputs[rows], split.target[rows]


def _view(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """The images with noise and moved by at most one pixel, the whole batch alike."""
    across, down = torch.randint(-1, 2, (2,), generator=generator).tolist()
    return inputs.roll((across, down), (-1, -2)) + 0.1 * torch.randn(inputs.shape, generator=generator)


@torch.no_grad()
def _pseudo_labels(model: nn.Module, view: Tensor, labels: Tensor) -> Tensor:
    """The labels of known samples as probabilities, and for novel ones a balanced assignment to the novel outputs."""
    novel = labels >= KNOWN
    target = F.one_hot(labels, CLASSES).float()
    scores = model(view[novel])[:, KNOWN:]
    plan = sinkhorn(-scores / (scores.std() + 1e-6), epsilon=EPSILON, iterations=50).plan
    target[novel] = F.pad(plan / plan.sum(1, keepdim=True), (KNOWN, 0)).to(target.dtype)
    return target


def _matched(model: nn.Module, split: Split) -> float:
    """Accuracy on novel samples under the best matching of novel outputs with classes."""
    inputs, labels = _of(split, novel=True)
    guess = model(inputs)[:, KNOWN:].argmax(1)
    count = torch.zeros(CLASSES - KNOWN, CLASSES - KNOWN)
    count.index_put_((guess, labels - KNOWN), torch.ones(len(guess)), accumulate=True)
    rows, columns = linear_sum_assignment(count.numpy(), maximize=True)
    return float(count[rows, columns].sum() / len(labels))


def rates(recipe: str) -> list[Settings]:
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.1, 0.03, 0.01)]


study = Study(
    question="Among four unlabelled digits, does distilling the relation to six known ones discover classes better?",
    setting="digits, MLP 64-256-256-10 pretrained on 0 to 5, discovers 6 to 9, best of 30 epochs",
    run=run,
    arms={
        "none": rates("none"),
        "class_relation_kd": rates(f"class_relation_kd(known={KNOWN})"),
    },
    expectations=[
        Expectation("class_relation_kd", "none"),
        Expectation("class_relation_kd", "none", "known", margin=-0.01),
    ],
)
