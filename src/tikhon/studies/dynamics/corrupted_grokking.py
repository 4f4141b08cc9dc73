"""Grokking with wrong labels: can a network learn the rule and the errors at once, and can one take the errors out?

The paper's two-layer network with squares for activations, on addition modulo 31 rather than 97, with L2 in the loss
for weight decay. Batch norm, the third regulariser of the paper, is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.grokking import tables
from tikhon.studies.study import Expectation, Settings, Study

__all__ = ["inverse_participation_ratio"]

card = Card(
    title="To grok or not to grok: Disentangling generalization and memorization on corrupted algorithmic datasets",
    authors="Doshi, Das, He, Gromov",
    year=2023,
    arxiv="2310.13061",
    problems=("noisy-labels", "overfitting"),
    formula=r"\mathrm{IPR}_r(w) = \sum_k \left(|\hat w_k| / \|\hat w\|\right)^{2r}",
    claim="Wrong labels are memorised beside a rule that generalises, by other neurons; weight decay and dropout drop "
    "them, and so does pruning.",
    helps="Telling neurons that follow a periodic rule from those that memorise.",
    hurts="Tasks whose rule is not periodic: Fourier weights then tell nothing.",
    cost="One Fourier transform of the weights.",
    neutral="",
    kind="study",
)

MODULUS, WIDTH = 31, 200
STEPS = 1000
WRONG = 0.1


def inverse_participation_ratio(weights: Tensor, power: float = 2.0) -> Tensor:
    """sum_k (|F_k| / ||F||)^(2 power) of the Fourier transform F of every row: how few frequencies it is made of.

    weights: (..., p), over the residues modulo p; power: above 1, 2 in the paper.

    Returns (...), with power 2: 1 for one frequency alone, as of a constant, 1/2 for a cosine, about 2/p for noise, 1/p
    at the least; 0 for a row of zeros. Source: Doshi et al. 2023, arXiv 2310.13061. Raises `TikhonError` for a power of
    1 or less, for which it says nothing.

    >>> import torch, tikhon
    >>> cosine = torch.cos(2 * torch.pi * 3 * torch.arange(7) / 7)
    >>> tikhon.inverse_participation_ratio(torch.stack([cosine, torch.ones(7), torch.eye(7)[0]]))
    tensor([0.5000, 1.0000, 0.1429])
    """
    if not power > 1:
        raise TikhonError(f"The power of an inverse participation ratio is above 1, not {power}: at 1 it is always 1.")
    energy: Tensor = torch.fft.fft(weights, dim=-1).abs().square()
    shares = energy / energy.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return shares.pow(power).sum(-1)


class _Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on all pairs at once, a tenth of them with a wrong sum, then set the weights of some neurons to 0.

    Measures: metric (accuracy on right pairs not trained on), train (on the labels as given), wrong (share of the wrong
    labels that the network gives back), participation (mean ratio, neurons weighted by what they add), validation.
    """
    (inputs, true), validation, test = tables(seed, MODULUS)
    generator = torch.Generator().manual_seed(seed_for("wrong", seed))
    wrong = torch.randperm(len(true), generator=generator)[: round(WRONG * len(true))]
    labels = true.clone()
    labels[wrong] += torch.randint(1, MODULUS, (len(wrong),), generator=generator)
    labels %= MODULUS
    model = _trained(settings, inputs, labels, seed, report)
    first, last = model[0].weight, model[-1].weight
    assert isinstance(first, Tensor)
    assert isinstance(last, Tensor)
    with torch.no_grad():
        last[:, _pruned(settings, neuron_participation(first, last), generator)] = 0.0
        size = last.norm(dim=0) * first.square().sum(1)  # of what a neuron adds to the output
        output = model(inputs)
        return {
            "metric": accuracy(model(test[0]), test[1]),
            "train": accuracy(output, labels),
            "wrong": accuracy(output[wrong], labels[wrong]),
            "participation": float(neuron_participation(first, last) @ size / size.sum()),
            "validation": accuracy(model(validation[0]), validation[1]),
        }


def neuron_participation(first: Tensor, last: Tensor) -> Tensor:
    """Each neuron's mean ratio of its weights from the first summand, from the second, and to the sum.

    first: (N, 2 p), last: (p, N). Returns (N,).

    >>> neuron_participation(torch.ones(1, 6), torch.tensor([[1.0], [0.0], [0.0]]))
    tensor([0.7778])
    """
    return inverse_participation_ratio(torch.stack([*first.chunk(2, dim=1), last.T])).mean(0)


def _trained(settings: Settings, inputs: Tensor, labels: Tensor, seed: int, report: Report) -> nn.Sequential:
    steps = settings.get("steps", STEPS)
    target = F.one_hot(labels, MODULUS).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(
            nn.Linear(2 * MODULUS, WIDTH, bias=False),
            _Square(),
            nn.Dropout(settings.get("dropout", 0.0)),
            nn.Linear(WIDTH, MODULUS, bias=False),
        )
        recipe = Recipe(*parse_arm(settings.get("recipe", "none")).methods(), base=F.mse_loss, seed=seed)
        recipe.prepare(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.get("learning_rate", 0.01))
        recipe.attach(optimizer, steps=steps)
        for step in range(steps):
            optimizer.zero_grad()
            recipe.loss(inputs, target).backward()
            optimizer.step()
            if step % 100 == 99:
                report((step + 1) / steps)
    return model.eval()


def _pruned(settings: Settings, participation: Tensor, generator: torch.Generator) -> Tensor:
    """Which neurons go: those of the lowest participation, or as many by lot."""
    count = round(settings.get("prune", 0.0) * WIDTH)
    if settings.get("by_lot"):
        return torch.randperm(WIDTH, generator=generator)[:count]
    return participation.argsort()[:count]


study = Study(
    question="Does a network that fits every wrong label also know the rule, in neurons that a Fourier transform "
    "finds: does pruning the others help, and pruning by lot not? Do L2 and dropout drop the wrong labels?",
    setting="addition modulo 31, 80% of the pairs, 10% of these with wrong sums; network 62-200-31 with squares for "
    "activations, squared error, Adam, 1,000 steps",
    run=run,
    arms={
        "none": [{"learning_rate": 0.01}, {"learning_rate": 0.005}],
        "pruned": [{"prune": share} for share in (0.25, 0.5)],
        "pruned_by_lot": [{"prune": share, "by_lot": True} for share in (0.25, 0.5)],
        "l2": [{"recipe": f"l2(strength={strength})"} for strength in (5e-5, 7e-5)],
        "dropout": [{"dropout": share} for share in (0.5, 0.7)],
    },
    expectations=[
        Expectation("pruned", "none", "metric"),
        Expectation("pruned", "none", "wrong", "lower"),
        Expectation("pruned", "pruned_by_lot", "metric"),
        Expectation("l2", "none", "metric"),
        Expectation("l2", "none", "wrong", "lower", margin=0.5),
        Expectation("l2", "none", "participation"),
        Expectation("dropout", "none", "metric"),
        Expectation("dropout", "none", "wrong", "lower", margin=0.5),
        Expectation("dropout", "none", "participation"),
    ],
)
