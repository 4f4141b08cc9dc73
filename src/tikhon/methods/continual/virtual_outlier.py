"""Virtual outlier regularisation: a classifier that is sure of its own task's classes and of nothing beyond them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, find_module, last_linear
from tikhon.core.passes import evaluating
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.neighbours import loneliest

Centre = Literal["boundary", "origin"]


def energy(scores: Tensor) -> Tensor:
    """-log sum_k exp z_k of every sample: (B, K) -> (B,). Low where some class is scored high (Liu et al. 2020).

    >>> energy(torch.zeros(1, 4))
    tensor([-1.3863])
    """
    return -scores.logsumexp(1)


def energy_hinge(excess: Tensor, squared: bool = False) -> Tensor:
    """How far an energy is on the wrong side of its margin: Huber's loss of relu(excess), or its square.

    excess: any shape; squared: the square in place of Huber's loss, whose threshold is 1. Returns the same shape.

    >>> energy_hinge(torch.tensor([-1.0, 0.5, 3.0]))
    tensor([0.0000, 0.1250, 2.5000])
    """
    wrong = excess.relu()
    return wrong.square() if squared else F.huber_loss(wrong, torch.zeros_like(wrong), reduction="none")


def virtual_outliers(
    features: Tensor, offsets: Tensor, count: int, k: int = 50, edge: int = 50, centre: Centre = "boundary"
) -> Tensor:
    """Points just beyond a sample of features (Huang et al. 2024, arXiv 2402.04129).

    The `edge` features that are loneliest after scaling to length 1 get every offset added, and of all these the
    `count` farthest from the features are kept, distances again taken after scaling to length 1. centre="origin": as
    in the official code, which loses the features: the offsets alone, taken `edge` times over and not scaled.

    features: (N, D), N at least k; offsets: (M, D), Gaussian. Returns (count, D), or fewer where candidates are few.
    """
    unit = F.normalize(features)
    edges = features[loneliest(unit, unit, k, min(edge, len(features)))]
    if centre == "origin":
        candidates = compared = offsets.repeat(len(edges), 1)
    else:
        candidates = (edges[:, None] + offsets).flatten(0, 1)
        compared = F.normalize(candidates)
    return candidates[loneliest(compared, unit, k, min(count, len(candidates)))]


class VirtualOutlierReg(Method):
    """Teach a classifier, once it knows the classes of a task, that points beyond their features are none of them.

    Use it for classes that arrive task by task, each with outputs of its own, where no old data may be kept and at the
    end all outputs compete: heads that never saw each other's classes claim them otherwise. Train each task in two
    phases. When the plain loss has done, say `recipe.end_task(loader)`: outliers are drawn around the task's features,
    and the penalty acts in the epochs that follow, on the classifier alone. `recipe.end_task()` without data ends this
    second phase. The paper freezes everything but the classifier then, and shares one prompt between all tasks before.

        loss = task + strength [mean H(E(x) - inner) + mean H(outer - E(o))],   E(x) = -log sum_k exp z_k(x)

    H: Huber's loss of the positive part; k: the classes of the task; x: the batch, o: as many outliers, drawn anew.

    strength: at least 0; inner, outer: energies that samples should stay below and outliers above: choose them by the
    energies that your scores have, the defaults suit ViT-B features; neighbours: k, at most the task's samples; edge,
    offsets, per_class: how many features at the edge, offsets around each, and outliers kept a class; spread: of the
    offsets, in units of the features, positive; centre: "origin" as in the official code, whose outliers are
    offsets alone; squared: hinges squared in place of Huber's; at: the classifier, an `nn.Linear`, the last by default.

    Cost: the task's features and edge * offsets distances to each at the end of the first phase, then two passes
    through the classifier a step. Reference: Huang, Chen, Hsu 2024, arXiv 2402.04129.

    >>> recipe = tikhon.Recipe(tikhon.VirtualOutlierReg())
    """

    card = Card(
        title="OVOR: OnePrompt with Virtual Outlier Regularization for Rehearsal-Free Class-Incremental Learning",
        authors="Huang, Chen, Hsu",
        year=2024,
        arxiv="2402.04129",
        problems=("forgetting", "shift"),
        formula=r"\lambda\,[H(E(x) - m_{in}) + H(m_{out} - E(o))]",
        claim="Raises the accuracy of class-incremental learning without rehearsal on ImageNet-R and CIFAR-100.",
        helps="Tasks with outputs of their own that compete at the end; good frozen features.",
        hurts="Margins that do not fit the scores; features that go on changing.",
        cost="Distances between candidates and the task's features, once; two passes of the classifier a step.",
    )
    needs = frozenset({"classes"})
    exempt = {
        "accumulation": "every batch draws as many outliers as it has samples, and draws are by micro-batch",
        "shards": "the head is applied outside of the model's own pass, where its weights are parts",
    }

    def __init__(
        self,
        strength: Strength = 0.1,
        inner: Strength = -15.0,
        outer: Strength = -3.0,
        neighbours: int = 50,
        edge: int = 50,
        offsets: int = 600,
        per_class: int = 40,
        spread: float = 1.0,
        centre: Centre = "boundary",
        squared: bool = False,
        at: str | None = None,
    ) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.inner, self.outer = checked("inner", inner), checked("outer", outer)
        checked("spread", spread, low=1e-12)
        counts = {"neighbours": neighbours, "edge": edge, "offsets": offsets, "per_class": per_class}
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise TikhonError(f"{name} must be a positive integer, not {count!r}.")
        if centre not in ("boundary", "origin"):
            raise TikhonError(f"centre is 'boundary' or 'origin', not {centre!r}.")
        self.neighbours, self.edge, self.offsets, self.per_class = counts.values()
        self.spread, self.centre, self.squared, self.at = spread, centre, squared, at
        self.drawn = Snapshot()  # "outliers" (M, D) and "classes" (C,) of the task in its second phase

    def check(self, model: nn.Module) -> None:
        place = self._place(model)
        if not isinstance(find_module(model, place, self.key), nn.Linear):
            raise TikhonError(f"{self.key} bounds a linear classifier, and {place!r} is none: name it with at=.")

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (self._place(model),)

    def _place(self, model: nn.Module) -> str:
        return last_linear(model, self.key) if self.at is None else self.at

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if not self.drawn.tensors or step.value(self.strength) == 0.0:
            return {}
        outliers, classes = self.drawn.tensors["outliers"], self.drawn.tensors["classes"]
        place = self._place(step.model)
        head = step.model.get_submodule(place)
        assert isinstance(head, nn.Linear)
        inside = step.tap(place).input.detach()
        inside = inside.reshape(-1, len(output), inside.shape[-1]).mean(0)  # of several masks a sample, the mean
        chosen = torch.randint(len(outliers), (len(output),), generator=step.generator()).to(outliers.device)
        both = torch.cat([inside, outliers[chosen].to(inside)])
        energies = energy(step.read(F.linear(both, head.weight, head.bias))[:, classes])
        within, beyond = energies.split(len(output))
        low = energy_hinge(within - step.value(self.inner), self.squared)
        high = energy_hinge(step.value(self.outer) - beyond, self.squared).mean()
        return {"inside": Term(low, self.strength), "outside": Term(high, self.strength, per_sample=False)}

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        if batches is None:
            self.drawn.take({})
            return
        features, labels = self._task(batches, step)
        if len(labels) < self.neighbours:
            raise TikhonError(f"{self.key} needs {self.neighbours} samples a task or more; it was given {len(labels)}.")
        classes = labels.unique()
        noise = torch.randn(self.offsets, features.shape[1], generator=step.generator()).to(features)
        shape = self.per_class * len(classes), self.neighbours, self.edge, self.centre
        self.drawn.take({"outliers": virtual_outliers(features, self.spread * noise, *shape), "classes": classes})

    def _task(self, batches: Iterable[tuple[Any, Tensor]], step: Step) -> tuple[Tensor, Tensor]:
        """What the classifier reads of every sample, (N, D), and the labels, (N,)."""
        features, labels = [], []
        head = step.model.get_submodule(self._place(step.model))
        hook = head.register_forward_pre_hook(lambda _, given: features.append(given[0]))
        try:
            with evaluating(step.model):
                for inputs, values in batches:
                    step.loss.refuse(step.output(step.model, inputs), values)
                    labels.append(values)
        finally:
            hook.remove()
        if not labels or labels[0].is_floating_point():
            raise TikhonError(f"{self.key} needs the task's data, with labels that are class indices.")
        return torch.cat(features), torch.cat(labels)
