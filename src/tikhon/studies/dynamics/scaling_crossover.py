"""Scaling-law crossover: a regulariser that wins at a small scale and loses at a large one, and where the two cross.

The paper scales language models; here the scale is how many samples there are, at as many steps: few samples are
seen hundreds of times, many just once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.step import seed_for
from tikhon.math.power_law import PowerLaw, fitted_power_law, law_derivatives, power_law_covariance
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

__all__ = ["crossover"]

card = Card(
    title="Rethinking Conventional Wisdom in Machine Learning: From Generalization to Scaling",
    authors="Xiao",
    year=2024,
    arxiv="2409.15156",
    problems=("overfitting",),
    formula=r"L(N) = E + A\,N^{-\alpha}; \quad L_1(N^*) = L_2(N^*)",
    claim="Regularisation that helps where data are repeated may not where they are seen once: curves of loss over "
    "scale cross, and what wins small loses large.",
    helps="Choosing a recipe for a scale at which one can train but once.",
    hurts="Far beyond the scales that were measured: the crossing is extrapolated, and its interval grows fast.",
    cost="Two fits of three parameters.",
    neutral="",
    kind="study",
)

REACH = 1e6
_POINTS = 4001


class Crossover(NamedTuple):
    """Where two laws cross, and an interval for it, each a scalar tensor; NaN where they do not."""

    at: Tensor
    low: Tensor
    high: Tensor


def crossover(x: Tensor, first: Tensor, second: Tensor, level: float = 0.95) -> Crossover:
    """Where the power law of one curve crosses that of another, with an interval.

    x: (n,), positive scales, n at least 4; first, second: (n,), losses there; level: of the interval, in (0, 1).

    The first crossing from the least x up to a million times the greatest counts. The interval is symmetric in log(x),
    from the errors of both fits to first order and Student's t with 2 (n - 3) degrees of freedom: too narrow where the
    fits are poor, and silent on curves that are no power law. Source: Xiao 2024, arXiv 2409.15156; the interval is
    ours. Raises `TikhonError` where no law can be fitted.

    >>> import torch, tikhon
    >>> x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    >>> plain, regularised = 4.0 * x**-0.5, 1.0 + 2.0 * x**-0.5  # alike where x^-0.5 = 1/2
    >>> round(float(tikhon.crossover(x, plain, regularised).at), 3)
    4.0
    """
    if not 0 < level < 1:
        raise TikhonError(f"level is {level}; the coverage of an interval lies between 0 and 1, for example 0.95.")
    laws = fitted_power_law(x, first), fitted_power_law(x, second)
    at = _first_crossing(*laws, low=x.min(), high=REACH * x.max())
    slopes = [-law.exponent * law.scale * at**-law.exponent for law in laws]  # by log(x)
    variance = torch.zeros_like(at)
    for law, loss in zip(laws, (first, second), strict=True):
        derivatives = law_derivatives(law, at[None])[0]
        variance = variance + derivatives @ power_law_covariance(law, x, loss) @ derivatives
    half = float(stdtrit(2 * (len(x) - 3), (1 + level) / 2)) * variance.sqrt() / (slopes[0] - slopes[1]).abs()
    return Crossover(at, at * (-half).exp(), at * half.exp())


def _first_crossing(one: PowerLaw, other: PowerLaw, low: Tensor, high: Tensor) -> Tensor:
    """The first x at which the difference of two laws changes sign, or NaN: a scan in log(x), then bisection."""
    scan = torch.lerp(low.log(), high.log(), torch.linspace(0.0, 1.0, _POINTS, dtype=low.dtype, device=low.device))
    sign = (one.at(scan.exp()) - other.at(scan.exp())).sign()
    changes = sign[1:] != sign[:-1]
    place = changes.to(torch.uint8).argmax()
    left, right = scan[place], scan[place + 1]
    for _ in range(60):
        middle = (left + right) / 2
        before = (one.at(middle.exp()) - other.at(middle.exp())).sign() == sign[place]
        left, right = torch.where(before, middle, left), torch.where(before, right, middle)
    return torch.where(changes.any(), right.exp(), torch.nan)


INPUTS, WIDTH = 16, 128
STEPS, BATCH = 1000, 32
SMALL = (128, 181, 256, 362, 512, 724, 1024)
SIZES = (*SMALL, 2048, 4096, 8192, STEPS * BATCH)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on every size for STEPS steps: 128 samples are seen 250 times each, the most just once.

    Measures: small and large (squared error over the target's variance at the least and the most samples), exponent (of
    the law fitted to the small sizes), validation (less the mean of the small sizes: recipes are tuned at small scale,
    which is where they can be), and with `crossing` the doublings of one sample at which decay and none cross, as
    `measured` over all sizes or as `predicted` from the small ones; where they do not, those of the far end.
    """
    loss, held = _curve(settings, seed, report)
    x, small = torch.tensor(SIZES, dtype=torch.float64), len(SMALL)
    measures = {
        "small": float(loss[0]),
        "large": float(loss[-1]),
        "exponent": float(fitted_power_law(x[:small], loss[:small]).exponent),
        "validation": -float(held[:small].mean()),
    }
    if "crossing" in settings:
        plain, _ = _curve({**settings, "decay": 0.0}, seed, report)
        if settings["crossing"] == "predicted":
            at = crossover(x[:small], plain[:small], loss[:small]).at
        else:
            at = _interpolated_crossing(x, plain - loss)
        measures["crossing"] = float(at.nan_to_num(REACH).log2())
    return measures


def _interpolated_crossing(x: Tensor, difference: Tensor) -> Tensor:
    """The first x at which the difference falls below 0, straight in log(x) between two sizes; NaN where none does."""
    below = difference <= 0
    after = below.to(torch.uint8).argmax()
    before = (after - 1).clamp_min(0)
    share = difference[before] / (difference[before] - difference[after])
    at = torch.lerp(x[before].log(), x[after].log(), torch.where(after == before, 0.0, share)).exp()
    return torch.where(below.any(), at, torch.nan)


def _curve(settings: Settings, seed: int, report: Report) -> tuple[Tensor, Tensor]:
    """(test, validation) squared error over the target's variance at every size; all networks are trained side by side,
    from the same weights, on the first samples of one stream."""
    steps = settings.get("steps", STEPS)
    generator = torch.Generator().manual_seed(seed_for("teacher", seed))
    spread = torch.arange(1.0, INPUTS + 1).rsqrt()
    first = 1.5 * torch.randn(INPUTS, 24, generator=generator)
    second = torch.randn(24, generator=generator) / 24**0.5

    def samples(count: int, noise: float) -> tuple[Tensor, Tensor]:
        x = spread * torch.randn(count, INPUTS, generator=generator)
        y = torch.tanh(x @ first) @ second + noise * torch.randn(count, generator=generator)
        return torch.cat([x, torch.ones(count, 1)], dim=1), y

    (x, y), test, held = samples(STEPS * BATCH, 0.5), samples(4000, 0.0), samples(1000, 0.0)
    weights = [
        torch.randn(INPUTS + 1, WIDTH, generator=generator) / INPUTS**0.5,
        torch.randn(WIDTH, 1, generator=generator) / WIDTH**0.5,
    ]
    u, v = (one.expand(len(SIZES), -1, -1).clone().requires_grad_() for one in weights)
    optimizer = torch.optim.AdamW([u, v], lr=settings["learning_rate"], weight_decay=settings["decay"])
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in range(steps):
        index = (step * BATCH + torch.arange(BATCH)) % torch.tensor(SIZES)[:, None]
        optimizer.zero_grad()
        (_output(x[index], u, v) - y[index]).square().mean(1).sum().backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            report((step + 1) / steps)
    with torch.no_grad():
        errors = [(_output(one, u, v) - value).square().mean(1) / value.var() for one, value in (test, held)]
    return errors[0].double(), errors[1].double()


def _output(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """What every network says: x is (B, d) for all or (sizes, B, d) for each. Returns (sizes, B)."""
    return ((x @ u).relu() @ v)[..., 0]


_DECAYS: list[Settings] = [{"learning_rate": 0.01, "decay": decay} for decay in (1.0, 3.0)]

study = Study(
    question="Does the weight decay that is best for few samples lose to none where every sample is seen once, and do "
    "power laws fitted to at most 1,024 samples say within a factor of 2 where the two cross?",
    setting="random teacher 16-24-1 with noise, MLP 16-128-1, AdamW, 1,000 steps of 32; 128 to 32,000 samples, "
    "candidates chosen by the mean over at most 1,024",
    run=run,
    arms={
        "none": [{"learning_rate": rate, "decay": 0.0} for rate in (0.01, 0.003)],
        "decay": _DECAYS,
        "measured": [{**one, "crossing": "measured"} for one in _DECAYS],
        "predicted": [{**one, "crossing": "predicted"} for one in _DECAYS],
    },
    expectations=[
        Expectation("decay", "none", "small", "lower"),
        Expectation("none", "decay", "large", "lower"),
        Expectation("predicted", "measured", "crossing", "higher", margin=-1.0),
        Expectation("predicted", "measured", "crossing", "lower", margin=-1.0),
    ],
)
