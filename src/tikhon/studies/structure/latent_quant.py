"""Do quantised latents stand for one source each more than those of plain and variational auto-encoders?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.blocks.structure.latent_quant import LatentQuantizer, nearest
from tikhon.core.fit import batches
from tikhon.core.step import seed_for
from tikhon.measures.infomec import infomec
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

SIDE, LEVELS, LATENTS = 12, (8, 8, 4, 4), 8
EPOCHS, BATCH = 300, 128


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Auto-encode pictures of a square that four sources vary: row, column, size and brightness.

    Measures: modularity, explicitness, compactness (InfoMEC on all pictures), error (mean squared, on the fifth of the
    pictures that was held out), validation (modularity and explicitness on the training pictures, their mean: the
    search may know the truth, for all arms alike).
    """
    sources = torch.cartesian_prod(*map(torch.arange, LEVELS))
    x = pictures(sources)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed_for("split", seed)))
    test, train = order.split([len(x) // 5, len(x) - len(x) // 5])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = AutoEncoder(settings)
        optimizer = torch.optim.AdamW(model.groups(settings["decay"]), lr=settings.get("learning_rate", 2e-3))
        for epoch in range(EPOCHS):
            for _, inputs, target in batches(x[train], x[train], BATCH, seed, epoch):
                optimizer.zero_grad()
                model.loss(inputs, target).backward()
                optimizer.step()
            report((epoch + 1) / EPOCHS)
    model.eval()
    with torch.no_grad():
        code, output = model.code(x), model(x)
    found, seen = (
        infomec(sources[rows], code[rows], not code.is_floating_point(), seed) for rows in (slice(None), train)
    )
    return {
        "modularity": found.modularity,
        "explicitness": found.explicitness,
        "compactness": found.compactness,
        "error": float((output.sigmoid() - x)[test].square().mean()),
        "validation": (seen.modularity + seen.explicitness) / 2,
    }


def pictures(sources: Tensor) -> Tensor:
    """(N, SIDE^2), in [0, 1]: a soft square whose row, column, size and brightness are the sources."""
    places = torch.arange(SIDE, dtype=torch.float32)
    row, column, size, brightness = sources.float().T[:, :, None]

    rows, columns = ((1.5 + 0.5 * size - (places - 2.0 - middle).abs()).clamp(0.0, 1.0) for middle in (row, column))
    grey: Tensor = rows[:, :, None] * columns[:, None, :] * (0.25 + 0.25 * brightness)[..., None]
    return grey.flatten(1)


class AutoEncoder(nn.Module):
    """Plain, variational or quantised between an encoder and a decoder of two hidden layers."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.beta = settings.get("beta")
        outputs = LATENTS if self.beta is None else 2 * LATENTS
        self.encoder = nn.Sequential(nn.Linear(SIDE**2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
        self.head = nn.Linear(128, outputs)
        self.decoder = nn.Sequential(
            nn.Linear(LATENTS, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, SIDE**2)
        )
        self.quantizer = LatentQuantizer(LATENTS) if settings["quantised"] else None

    def groups(self, decay: float) -> list[dict[str, object]]:
        """Weights of encoder and decoder, which decay, and biases and values, which do not."""
        kinds: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, one in self.named_parameters():
            kinds[name.endswith("weight")].append(one)
        return [{"params": kinds[True], "weight_decay": decay}, {"params": kinds[False], "weight_decay": 0.0}]

    def latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder gives; where it is variational, the second half of it is the logarithm of the spread."""
        z: Tensor = self.head(self.encoder(x))
        return (z, z) if self.beta is None else (z[:, :LATENTS], z[:, LATENTS:])

    def loss(self, x: Tensor, target: Tensor) -> Tensor:
        mean, log_spread = self.latents(x)
        z, penalty = mean, torch.zeros(())
        if self.beta is not None:
            z = mean + log_spread.exp() * torch.randn_like(mean)
            penalty = self.beta * (0.5 * (mean.square() + (2 * log_spread).exp() - 1) - log_spread).mean()
        if self.quantizer is not None:
            z, penalty = self.quantizer(mean), self.quantizer.penalty(mean).mean()
        return F.binary_cross_entropy_with_logits(self.decoder(z), target) + penalty

    def code(self, x: Tensor) -> Tensor:
        """What is judged: which value each latent takes, or the latent itself."""
        z = self.latents(x)[0]
        return z if self.quantizer is None else nearest(z, self.quantizer.values)

    def forward(self, x: Tensor) -> Tensor:
        z = self.latents(x)[0]
        output: Tensor = self.decoder(z if self.quantizer is None else self.quantizer(z))
        return output


study = Study(
    question="Are the latents of the quantised auto-encoder more modular, by 0.1, than those of a plain and of a "
    "variational one, no less explicit, at no worse reconstruction, and is decay of the weights half of it?",
    setting="1024 pictures of a square with 4 sources, MLP auto-encoder with 8 latents, 10 values each, 2100 steps",
    run=run,
    arms={
        "plain": [{"quantised": False, "decay": decay} for decay in (0.1, 1.0)],
        "variational": [{"quantised": False, "decay": 0.0, "beta": beta} for beta in (0.01, 0.1)],
        "latent_quant": [{"quantised": True, "decay": decay} for decay in (0.3, 1.0)],
        "no_decay": [{"quantised": True, "decay": 0.0, "learning_rate": rate} for rate in (2e-3, 5e-4)],
    },
    expectations=[
        Expectation("latent_quant", "plain", "modularity", margin=0.1),
        Expectation("latent_quant", "variational", "modularity", margin=0.1),
        Expectation("latent_quant", "plain", "explicitness", margin=-0.02),
        Expectation("latent_quant", "variational", "explicitness", margin=-0.02),
        Expectation("latent_quant", "no_decay", "modularity"),
        Expectation("latent_quant", "plain", "error", "lower", margin=-0.005),
    ],
)
