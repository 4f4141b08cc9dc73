"""One epoch: is training once on fresh data better than ten times on a tenth of it, and does dropout then only hurt?

Komatsuzaki trains Transformers on a billion words; here an MLP learns a Markov source, whose excess loss is known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.step import seed_for
from tikhon.math.power_law import fitted_power_law
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

__all__ = ["steps_to_reach"]

card = Card(
    title="One Epoch Is All You Need",
    authors="Komatsuzaki",
    year=2019,
    arxiv="1906.06669",
    problems=("overfitting", "speed"),
    formula=r"L(s) \approx c + a\,s^{-b}",
    claim="One epoch on fresh data instead of ten on a tenth of it is 1.9 to 3.3 times as fast; dropout only slows.",
    helps="Where more data of the same kind cost less than training on them: text, logs, simulations.",
    hurts="Where data are scarce: they must be repeated, and there regularisation helps.",
    cost="Nothing in training: as many steps, each on data not seen before.",
    neutral="",
    kind="study",
)

SYMBOLS, ORDER = 16, 3
WIDTH = 128
STEPS, BATCH = 1500, 64
POINTS = 30
PLATEAU = 30
EPOCHS = 10
DROPOUT = 0.1


def steps_to_reach(steps: Tensor, loss: Tensor, level: Tensor) -> Tensor:
    """The first step at which a curve of losses is at `level` or below; infinite where it never is.

    steps: (n,), rising and positive; loss: (n,); level: of any shape, which the result has. Between two points the
    curve is straight in log(steps), as power laws nearly are. Two curves give a speed-up: the ratio of the steps at
    which they reach one loss (Komatsuzaki 2019, arXiv 1906.06669).

    >>> import torch, tikhon
    >>> steps, fresh = torch.tensor([1.0, 10.0, 100.0]), torch.tensor([3.0, 2.0, 1.0])
    >>> tikhon.steps_to_reach(steps, fresh, torch.tensor([2.0, 1.0, 0.5]))
    tensor([ 10.0000, 100.0000,      inf])
    """
    if steps.ndim != 1 or steps.shape != loss.shape or not len(steps):
        raise TikhonError(f"A curve has as many steps as losses, not {tuple(steps.shape)} and {tuple(loss.shape)}.")
    below = loss <= level[..., None]
    after = below.to(torch.uint8).argmax(-1)  # the first point at or below the level
    before = (after - 1).clamp_min(0)
    fall = loss[before] - loss[after]
    share = torch.where(fall > 0, (loss[before] - level) / fall.clamp_min(torch.finfo(loss.dtype).tiny), 1.0)
    where = torch.lerp(steps[before].log(), steps[after].log(), share.to(loss.dtype)).exp()
    return torch.where(below.any(-1), where, torch.inf)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on `epochs` passes over as many transitions as make STEPS steps in all.

    Measures: loss (mean divergence from the true next symbol's distribution, in nats, at the step with the best
    validation), straight (R^2 of a power law fitted to the loss over steps), validation (less the cross-entropy) and,
    without dropout, speedup (how many times sooner this arm reaches the least loss of ten epochs than they do; 0 if
    never).
    """
    source = _Source(seed)
    steps, loss, validation = _curves(source, settings, seed, report)
    best = validation.argmin()
    falling = steps >= PLATEAU  # before, the network has only learned how frequent symbols are
    measures = {
        "loss": float(loss[best]),
        "straight": _straightness(steps[falling], loss[falling]),
        "validation": -float(validation[best]),
    }
    if not settings["dropout"]:
        ten = {**settings, "epochs": EPOCHS}
        reference = loss if ten == settings else _curves(source, ten, seed, report)[1]
        sooner = steps_to_reach(steps, reference, reference.min()) / steps_to_reach(steps, loss, reference.min())
        measures["speedup"] = float(sooner)
    return measures


class _Source:
    """A Markov source of order 3: the logits of the next symbol are a random network's of the last three."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed_for("source", seed))
        contexts = torch.cartesian_prod(*[torch.arange(SYMBOLS)] * ORDER)
        first = torch.randn(ORDER * SYMBOLS, 32, generator=self.generator) / ORDER**0.5
        second = torch.randn(32, SYMBOLS, generator=self.generator) / 32**0.5
        hidden = torch.tanh(2.0 * F.one_hot(contexts, SYMBOLS).flatten(1).float() @ first)
        self.probabilities = torch.softmax(3.0 * hidden @ second, dim=1)

    def transitions(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(contexts (count, 3), next symbols (count,), their distributions (count, 16)), from 64 streams."""
        state = torch.randint(SYMBOLS, (64, ORDER), generator=self.generator)
        contexts, following = [], []
        places = SYMBOLS ** torch.arange(ORDER - 1, -1, -1)
        for _ in range(-(-count // 64)):
            symbol = torch.multinomial(self.probabilities[state @ places], 1, generator=self.generator)
            contexts.append(state)
            following.append(symbol[:, 0])
            state = torch.cat([state[:, 1:], symbol], dim=1)
        seen = torch.cat(contexts)[:count]
        return seen, torch.cat(following)[:count], self.probabilities[seen @ places]


def _curves(source: _Source, settings: Settings, seed: int, report: Report) -> tuple[Tensor, Tensor, Tensor]:
    """(steps, test loss, validation loss) at POINTS steps spread evenly in their logarithms."""
    count, epochs = settings.get("steps", STEPS), settings["epochs"]
    source.generator.manual_seed(seed_for("streams", seed))
    test, held = source.transitions(2048), source.transitions(2048)
    contexts, following, _ = source.transitions(count * BATCH // epochs)
    order = torch.cat([torch.randperm(len(following), generator=source.generator) for _ in range(epochs)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(
            nn.Embedding(SYMBOLS, SYMBOLS),
            nn.Flatten(),
            nn.Linear(ORDER * SYMBOLS, WIDTH),
            nn.ReLU(),
            nn.Dropout(settings["dropout"]),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(settings["dropout"]),
            nn.Linear(WIDTH, SYMBOLS),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"], fused=True)
        looks = sorted({round(count ** (i / (POINTS - 1))) for i in range(POINTS)} | {count})
        curve = []
        for step, batch in enumerate(order.split(BATCH)[:count], start=1):
            optimizer.zero_grad()
            F.cross_entropy(model(contexts[batch]), following[batch]).backward()
            optimizer.step()
            if step in looks:
                curve.append(_losses(model, test, held))
                report(step / count)
    found = torch.tensor(curve, dtype=torch.float64)
    return torch.tensor(looks, dtype=torch.float64), found[:, 0], found[:, 1]


@torch.no_grad()
def _losses(model: nn.Module, test: tuple[Tensor, ...], held: tuple[Tensor, ...]) -> tuple[float, float]:
    model.eval()
    divergence = F.kl_div(model(test[0]).log_softmax(1), test[2], reduction="batchmean")
    validation = F.cross_entropy(model(held[0]), held[1])
    model.train()
    return float(divergence), float(validation)


def _straightness(steps: Tensor, loss: Tensor) -> float:
    """R^2 of the power law that fits best."""
    residual = (loss - fitted_power_law(steps, loss).at(steps)).square().sum()
    return 1.0 - float(residual / (loss - loss.mean()).square().sum())


def _arm(epochs: int, dropout: float) -> list[Settings]:
    return [{"epochs": epochs, "dropout": dropout, "learning_rate": rate} for rate in (3e-4, 1e-3, 3e-3)]


study = Study(
    question="At as many steps, is one epoch better than ten on a tenth of the data, with dropout or without, and 1.9 "
    "times as fast; does dropout hurt in one epoch and help in ten?",
    setting="Markov source of order 3 on 16 symbols, MLP 48-128-128-16, 1,500 steps of 64 transitions, early stopping; "
    "dropout 0.1",
    run=run,
    arms={
        "one_epoch": _arm(1, 0.0),
        "one_epoch_dropout": _arm(1, DROPOUT),
        "ten_epochs": _arm(EPOCHS, 0.0),
        "ten_epochs_dropout": _arm(EPOCHS, DROPOUT),
    },
    expectations=[
        Expectation("one_epoch", "ten_epochs", "loss", "lower"),
        Expectation("one_epoch", "ten_epochs_dropout", "loss", "lower"),
        Expectation("one_epoch", "ten_epochs", "speedup", margin=0.9),
        Expectation("one_epoch", "one_epoch_dropout", "loss", "lower"),
        Expectation("ten_epochs_dropout", "ten_epochs", "loss", "lower"),
    ],
)
