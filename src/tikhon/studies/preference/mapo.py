"""Does the margin move a flow model further towards preferred samples that it does not make yet?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.methods.generative.repa import interpolant
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

OLD, NEW = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0])
SPREAD = 0.4
PRETRAINING, STEPS, BATCH = 1000, 150, 128


class Errors(nn.Module):
    """A flow model that reads noisy pairs with their velocity, and gives -T times the error of either: what
    Diffusion-DPO takes for log-probabilities."""

    def __init__(self, flow: nn.Module, timesteps: float) -> None:
        super().__init__()
        self.flow, self.timesteps = flow, timesteps

    def forward(self, pairs: Tensor) -> Tensor:
        noisy, velocity = pairs.split([3, 2], dim=-1)
        errors: Tensor = (self.flow(noisy) - velocity).square().mean(-1)
        return -self.timesteps * errors


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Pretrain a flow model on one blob of the plane, then prefer samples of another blob to samples of the first.

    Measures: preferred (share of samples within two spreads of the preferred centre), validation (the same, of other
    samples).
    """
    generator = torch.Generator().manual_seed(seed_for("flow", seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        flow = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(PRETRAINING):
        noisy, velocity = _noised(_blob(OLD, generator), generator)
        optimizer.zero_grad()
        F.mse_loss(flow(noisy), velocity).backward()
        optimizer.step()
    dpo = settings["recipe"].startswith("f_dpo")
    reference = Errors(copy.deepcopy(flow), 1000.0)
    recipe = Recipe(*parse_arm(settings["recipe"]).methods(), base=F.mse_loss, seed=seed)
    model = recipe.prepare(Errors(flow, 1000.0) if dpo else flow)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    recipe.attach(optimizer, steps=STEPS)
    for step in range(STEPS):
        noise, t = torch.randn(BATCH, 2, generator=generator), torch.rand(BATCH, generator=generator)
        parts = [interpolant(_blob(centre, generator), noise, t) for centre in (NEW, OLD)]
        noisy = torch.stack([torch.cat([one, t[:, None]], dim=1) for one, _ in parts], dim=1)
        velocity = torch.stack([one for _, one in parts], dim=1)
        optimizer.zero_grad()
        if dpo:
            pairs = torch.cat([noisy, velocity], dim=-1)
            with torch.no_grad():
                known = reference(pairs)
            recipe.loss(pairs, known).backward()
        else:
            recipe.loss(noisy, velocity).backward()
        optimizer.step()
        report((step + 1) / STEPS)
    return {
        "preferred": _preferred(flow, torch.Generator().manual_seed(seed_for("test", seed))),
        "validation": _preferred(flow, torch.Generator().manual_seed(seed_for("validation", seed))),
    }


def _blob(centre: Tensor, generator: torch.Generator) -> Tensor:
    return centre + SPREAD * torch.randn(BATCH, 2, generator=generator)


def _noised(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    t = torch.rand(len(x), generator=generator)
    noisy, velocity = interpolant(x, torch.randn(x.shape, generator=generator), t)
    return torch.cat([noisy, t[:, None]], dim=1), velocity


@torch.no_grad()
def _preferred(flow: nn.Module, generator: torch.Generator, count: int = 1000, steps: int = 50) -> float:
    x = torch.randn(count, 2, generator=generator)
    for step in range(steps):
        x = x - flow(torch.cat([x, torch.full((count, 1), 1.0 - step / steps)], dim=1)) / steps
    return float(((x - NEW).norm(dim=1) < 2 * SPREAD).double().mean())


def rates(recipe: str) -> list[Settings]:
    return [{"recipe": recipe, "learning_rate": rate} for rate in (1e-3, 3e-3, 1e-2)]


study = Study(
    question="After as many steps, does MaPO put more samples at the preferred place than Diffusion-DPO, and than a "
    "fit of the preferred samples alone?",
    setting="flow model of the plane, MLP 3-64-64-2; preferred blob outside of what it was pretrained on; 150 steps",
    run=run,
    arms={"sft": rates("mapo(beta=0.0)"), "diffusion_dpo": rates("f_dpo(beta=0.1)"), "mapo": rates("mapo")},
    expectations=[
        Expectation("mapo", "diffusion_dpo", "preferred"),
        Expectation("mapo", "sft", "preferred"),
    ],
)
