"""Does sparse transport fill every expert's places, no more, and leave fewer tokens without an expert?"""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.step import seed_for
from tikhon.solvers.transport.sparse_ot import sparse_ot
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

TOKENS, EXPERTS, WIDTH = 256, 8, 16
PLACES = TOKENS // EXPERTS


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Route one batch of tokens that lie in clusters, so that some experts are wanted by far more than their places.

    Measures: overflow (share of the assignments asked for that found all places taken), unserved (share of tokens
    without an expert), gate and validation (of a token, the greatest router probability among the experts that took it,
    on average; 0 for those without).
    """
    generator = torch.Generator().manual_seed(seed_for("tokens", seed))
    centres = torch.randn(5, WIDTH, generator=generator, dtype=torch.float64)
    chosen = torch.randint(5, (TOKENS,), generator=generator)
    tokens = centres[chosen] + 0.7 * torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    experts = torch.randn(EXPERTS, WIDTH, generator=generator, dtype=torch.float64)
    gates = (tokens @ experts.T / WIDTH**0.5).softmax(1)
    asked = ROUTERS[settings["router"]](gates, settings)
    taken = asked & _first(torch.where(asked, gates, -1.0))
    report(1.0)
    gate = float(torch.where(taken, gates, 0.0).amax(1).mean())
    return {
        "overflow": 1.0 - float(taken.sum()) / float(asked.sum()),
        "unserved": 1.0 - float(taken.any(1).double().mean()),
        "gate": gate,
        "validation": gate,
    }


def _first(scores: Tensor) -> Tensor:
    """Which tokens each expert has places for, the highest scores first."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter(0, scores.topk(PLACES, dim=0).indices, True)


def _tokens_choose(gates: Tensor, settings: Settings) -> Tensor:
    return torch.zeros_like(gates, dtype=torch.bool).scatter(1, gates.argmax(1, keepdim=True), True)


def _experts_choose(gates: Tensor, settings: Settings) -> Tensor:
    return _first(gates)


def _transport(gates: Tensor, settings: Settings) -> Tensor:
    cost = -gates.log()
    places = PLACES if settings["router"] == "sparse_ot" else None
    return sparse_ot(cost / cost.max(), k=places, gamma=1.0).plan > 0


ROUTERS = {
    "tokens_choose": _tokens_choose,
    "experts_choose": _experts_choose,
    "quadratic": _transport,
    "sparse_ot": _transport,
}

study = Study(
    question="Does sparse transport ask for no place that is taken, and leave fewer tokens without an expert than a "
    "choice by tokens, or by experts, does?",
    setting="256 tokens in 5 clusters, 8 experts with 32 places each, one expert a token; costs up to 1, gamma 1",
    run=run,
    arms={name: [{"router": name}] for name in ROUTERS},
    expectations=[
        Expectation("sparse_ot", "tokens_choose", "overflow", "lower"),
        Expectation("sparse_ot", "quadratic", "overflow", "lower"),
        Expectation("sparse_ot", "tokens_choose", "unserved", "lower"),
        Expectation("sparse_ot", "experts_choose", "unserved", "lower"),
        Expectation("sparse_ot", "tokens_choose", "gate"),
    ],
)
