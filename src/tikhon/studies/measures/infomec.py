"""Does each of InfoMEC's three numbers fall for its own fault, and for that alone?"""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.step import seed_for
from tikhon.measures.infomec import infomec
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

SAMPLES, SOURCES, VALUES = 500, 4, 5


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Four independent sources of five values, and latents made of them with one fault, or none.

    Measures: modularity, explicitness, compactness, validation (their mean).
    """
    generator = torch.Generator().manual_seed(seed_for("sources", seed))
    sources = torch.randint(VALUES, (SAMPLES, SOURCES), generator=generator)
    latents = sources + 0.05 * torch.randn(SAMPLES, SOURCES, generator=generator, dtype=torch.float64)
    found = infomec(sources, CODES[settings["code"]](latents, generator), discrete=False, seed=seed)
    report(1.0)
    numbers = {name: getattr(found, name) for name in ("modularity", "explicitness", "compactness")}
    return {**numbers, "validation": sum(numbers.values()) / 3}


def _turned(latents: Tensor, generator: torch.Generator) -> Tensor:
    rotation: Tensor = torch.linalg.qr(torch.randn(SOURCES, SOURCES, generator=generator, dtype=torch.float64))[0]
    return latents @ rotation


def _doubled(latents: Tensor, generator: torch.Generator) -> Tensor:
    return torch.cat([latents, -latents], dim=1)


def _idle(latents: Tensor, generator: torch.Generator) -> Tensor:
    return torch.cat([latents, 0.02 * torch.randn(SAMPLES, SOURCES, generator=generator, dtype=torch.float64)], dim=1)


CODES = {
    "one_to_one": lambda latents, generator: latents,
    "turned": _turned,
    "doubled": _doubled,
    "left_out": lambda latents, generator: latents[:, 1:],
    "idle": _idle,
}

study = Study(
    question="Does a rotation lower modularity but not explicitness, a second copy compactness but not modularity, a "
    "source left out explicitness but not modularity, and do idle latents lower nothing?",
    setting="500 samples of 4 sources with 5 values, a latent a source with a little noise, and one fault each",
    run=run,
    arms={name: [{"code": name}] for name in CODES},
    expectations=[
        Expectation("turned", "one_to_one", "modularity", "lower", margin=0.3),
        Expectation("turned", "one_to_one", "explicitness", margin=-0.05),
        Expectation("doubled", "one_to_one", "compactness", "lower", margin=0.3),
        Expectation("doubled", "one_to_one", "modularity", margin=-0.02),
        Expectation("left_out", "one_to_one", "explicitness", "lower", margin=0.2),
        Expectation("left_out", "one_to_one", "modularity", margin=-0.02),
        Expectation("idle", "one_to_one", "modularity", margin=-0.02),
        Expectation("idle", "one_to_one", "compactness", margin=-0.02),
    ],
)
