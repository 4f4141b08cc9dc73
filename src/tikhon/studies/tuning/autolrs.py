"""Does AutoLRS, which is told bounds only, beat a badly chosen rate, and does it match schedules that were tuned?

The second design. The first trained for 3,500 steps on 40,000 signals, at rates from 0.001 to 1 and in stages of 500
and 1,000, with trials of 50 and 100 steps, and its forecasts carried straight lines on: accuracy was 0.43 above that of
the bad rate, and 0.07 [-0.03, 0.17] below that of the cosine. Here stages begin at 1,000 steps as in the paper, bounds
are two decades apart as in its code, no signal is seen often enough to be learned by heart, and one more cosine is
tuned within the steps that AutoLRS takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import batches
from tikhon.core.step import seed_for
from tikhon.data.mnist1d import mnist1d
from tikhon.data.seeds import numpy_generator
from tikhon.data.task import Split
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study
from tikhon.tuning.autolrs import AutoLRS

WIDTHS = (40, 48, 48, 10)
STEPS, BATCH, EVERY = 15_000, 256, 250
STAGE, LONGEST = 1000, 4000
SHARE = 10
"""A search within the steps that AutoLRS takes trains for a tenth of them at each of ten rates, then at the best."""
RATES = tuple(float(rate) for rate in np.geomspace(0.01, 1.0, 10))
BAD = RATES[1]
SAMPLES = {"train": 200_000, "validation": 5_000, "test": 10_000}


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train an MLP on signals of 40 points, with the weights of the step that is best on validation data.

    Measures: metric (test accuracy), loss (cross-entropy on the test set), validation (less the cross-entropy), steps
    (of all trainings, with explorations); of AutoLRS error (median of |forecast / loss at the end of its stage - 1| of
    the rates that were chosen).
    """
    data = {name: _split(name, seed) for name in SAMPLES}
    if settings["schedule"] == "autolrs":
        return _tuned_on_the_fly(data, seed, report)
    rates, cosine, steps = settings["rates"], settings["schedule"] == "cosine", 0
    if settings.get("search", False):
        short = _side_by_side(data, rates, cosine, STEPS // SHARE, seed, report)
        rates, steps = (rates[short.number],), len(rates) * STEPS // SHARE
    best = _side_by_side(data, rates, cosine, STEPS, seed, report)
    return {**best.measures(), "steps": float(steps + len(rates) * STEPS)}


def _split(name: str, seed: int) -> Split:
    signals, labels = mnist1d(SAMPLES[name], numpy_generator(seed, name))
    return Split(torch.from_numpy(signals).float(), torch.from_numpy(labels))


def _batches(train: Split, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end."""
    epoch = 0
    while True:
        for _, inputs, target in batches(train.inputs, train.target, BATCH, seed, epoch):
            yield inputs, target
        epoch += 1


def _network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        first, second, third = (nn.Linear(*sizes) for sizes in pairwise(WIDTHS))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


def _tuned_on_the_fly(data: dict[str, Split], seed: int, report: Report) -> dict[str, float]:
    model, best, errors = _network(seed), _Best(data), []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATES[-1], momentum=0.9)

    def loss_on(name: str) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(model(data[name].inputs), data[name].target))

    tuner = AutoLRS(
        model,
        optimizer,
        low=RATES[0],
        high=RATES[-1],
        stage=STAGE,
        longest=LONGEST,
        validation=lambda: loss_on("validation"),
    )
    stream, steps = _batches(data["train"], seed), 0
    while tuner.trained < STEPS:
        inputs, target = next(stream)
        loss = F.cross_entropy(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept, steps = tuner.trained, steps + 1
        tuner.step(loss)
        if tuner.trained > kept and tuner.trained % EVERY == 0:
            report(tuner.trained / STEPS)
            best.update(lambda split: model(split.inputs)[None])
        if tuner.trained > kept and tuner.exploring:
            stage = tuner.stages[-1]
            expected = stage.forecasts[stage.rates.index(stage.chosen)]
            looked_at = "train" if len(tuner.stages) <= 3 else "validation"
            errors.append(abs(expected / loss_on(looked_at) - 1.0))
    return {**best.measures(), "steps": float(steps), "error": median(errors)}


def _side_by_side(
    data: dict[str, Split], rates: Sequence[float], cosine: bool, steps: int, seed: int, report: Report
) -> _Best:
    """A network for every rate, all trained from the same weights on the same batches."""
    count = len(rates)
    network = _network(seed)
    leaves = [leaf.detach().expand(count, *leaf.shape).clone().requires_grad_() for leaf in network.parameters()]
    momenta = [torch.zeros_like(leaf) for leaf in leaves]
    best, stream = _Best(data), _batches(data["train"], seed)
    for step in range(steps):
        inputs, target = next(stream)
        output = _outputs(leaves, inputs)
        losses = F.cross_entropy(output.flatten(0, 1), target.repeat(count), reduction="none").view(count, -1).mean(1)
        gradients = torch.autograd.grad(losses.sum(), leaves)
        now = torch.tensor(rates) * (0.5 * (1.0 + math.cos(math.pi * step / steps)) if cosine else 1.0)
        with torch.no_grad():
            torch._foreach_mul_(momenta, 0.9)
            torch._foreach_add_(momenta, gradients)
            for leaf, momentum in zip(leaves, momenta, strict=True):
                leaf -= now.view(-1, *[1] * (leaf.ndim - 1)) * momentum
            if (step + 1) % EVERY == 0:
                report((step + 1) / steps)
                best.update(lambda split: _outputs(leaves, split.inputs))
    return best


def _outputs(leaves: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Of networks side by side: (N, 40) -> (networks, N, 10)."""
    hidden = inputs.expand(len(leaves[0]), *inputs.shape)
    for place in range(0, len(leaves), 2):
        hidden = torch.baddbmm(leaves[place + 1][:, None], hidden if place == 0 else hidden.relu(), leaves[place].mT)
    return hidden


class _Best:
    """What the test data say where validation data are fitted best, over networks and steps, and by which network."""

    def __init__(self, data: dict[str, Split]) -> None:
        self._data = data
        self.validation = -math.inf
        self.metric = self.loss = math.nan
        self.number = 0

    @torch.no_grad()
    def update(self, outputs: Callable[[Split], Tensor]) -> None:
        """outputs: of all networks on a split, (networks, N, 10)."""
        held, test = self._data["validation"], self._data["test"]
        scores = [-float(F.cross_entropy(output, held.target)) for output in outputs(held)]
        score = max(score for score in scores if not math.isnan(score))
        if score > self.validation:
            self.number = scores.index(score)
            output = outputs(test)[self.number]
            self.validation, self.metric = score, accuracy(output, test.target)
            self.loss = float(F.cross_entropy(output, test.target))

    def measures(self) -> dict[str, float]:
        return {"metric": self.metric, "loss": self.loss, "validation": self.validation}


study = Study(
    question="Told only that the rate lies between 0.01 and 1, is AutoLRS above a badly chosen rate and no worse, in "
    "as many kept steps, than a cosine schedule tuned within the same steps in all, and than the best constant and "
    "the best cosine of a grid of ten?",
    setting="MNIST-1D, 200,000 signals, MLP 40-48-48-10, SGD with momentum, 15,000 steps of 256, trials of 100 to 400",
    run=run,
    arms={
        "autolrs": [{"schedule": "autolrs"}],
        "constant_bad": [{"schedule": "constant", "rates": (BAD,)}],
        "cosine_searched": [{"schedule": "cosine", "rates": RATES, "search": True}],
        "constant_tuned": [{"schedule": "constant", "rates": RATES}],
        "cosine_tuned": [{"schedule": "cosine", "rates": RATES}],
    },
    expectations=[
        Expectation("autolrs", "constant_bad"),
        Expectation("autolrs", "cosine_searched", margin=-0.01),
        Expectation("autolrs", "constant_tuned", margin=-0.01),
        Expectation("autolrs", "cosine_tuned", margin=-0.01),
        Expectation("autolrs", "constant_tuned", "steps", "lower"),
    ],
)
