"""FixMatch: the loss by hand, what the threshold lets through, no gradient through labels, and what is learned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.fix_match import pseudo_labels


def weak(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.1


def strong(x: Tensor, generator: torch.Generator) -> Tensor:
    return 0.5 * x


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[2].weight.mul_(20.0)
    return model


def ready(model: nn.Module, pool: Tensor, **named: object):
    recipe = tikhon.Recipe(tikhon.FixMatch(pool, **{"weak": weak, "strong": strong} | named))
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.2))
    return recipe, optimizer


def batch(seed: int, rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator), torch.randint(3, (rows,), generator=generator)


@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.0])
def test_loss_and_gradient_by_hand(threshold: float) -> None:
    model, x_y = network(), batch(0)
    pool = batch(1, 1)[0]  # one input: whatever is drawn, it is this one
    recipe, _ = ready(model, pool, strength=0.5, threshold=threshold, ratio=2)
    loss = recipe.loss(*x_y)
    p = model(weak(pool, None)).softmax(1).detach()
    unlabelled = F.cross_entropy(model(strong(pool, None)), p.argmax(1)) * float(p.max() >= threshold)
    expected = F.cross_entropy(model(x_y[0]), x_y[1]) + 0.5 * unlabelled
    torch.testing.assert_close(loss, expected)
    for one, of in zip(
        torch.autograd.grad(loss, [*model.parameters()]),
        torch.autograd.grad(expected, [*model.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(one, of)
    assert 0.8 < p.max() < 1.0


def test_a_mean_over_all_that_was_drawn() -> None:
    model = network()
    pool = batch(1, 40)[0]
    recipe, _ = ready(model, pool, threshold=0.9, ratio=500)
    recipe.loss(*batch(0))
    with torch.no_grad():
        labels, sure = pseudo_labels(model(weak(pool, None)).softmax(1), 0.9)
        expected = (F.cross_entropy(model(strong(pool, None)), labels, reduction="none") * sure).mean()
    assert 0 < sure.sum() < 40
    assert recipe.log()["loss/fix_match/pseudo-labels"] == pytest.approx(float(expected), rel=0.15)


def test_ties_and_thresholds() -> None:
    p = torch.tensor([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
    labels, sure = pseudo_labels(p, 0.8)
    assert labels[1:].tolist() == [1, 0]
    assert sure.tolist() == [False, True, True]


def test_inputs_without_labels_teach() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-2.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    y = torch.arange(300) % 2
    x = centres[y] + torch.randn(300, 4, generator=generator) * torch.tensor([0.7, 2.0, 2.0, 2.0])

    def turned(x: Tensor, g: torch.Generator) -> Tensor:
        return x + torch.randn(x.shape, generator=g) * torch.tensor([0.3, 2.0, 2.0, 2.0])

    right = {}
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        recipe, optimizer = ready(model, x, strength=strength, threshold=0.8, weak=lambda x, _: x, strong=turned)
        for _ in range(150):
            optimizer.zero_grad()
            recipe.loss(x[:6], y[:6]).backward()
            optimizer.step()
        right[strength] = float((model(x).argmax(1) == y).float().mean())
    assert right[1.0] > right[0.0] + 0.02


def test_wrong_input() -> None:
    pool = torch.zeros(3, 4)
    for arguments, says in (({"threshold": 1.5}, "threshold"), ({"ratio": 0}, "ratio"), ({"strength": -1}, "strength")):
        with pytest.raises(tikhon.TikhonError, match=says):
            tikhon.FixMatch(pool, **arguments)
    with pytest.raises(tikhon.TikhonError, match="no further inputs"):
        tikhon.FixMatch(torch.zeros(0, 4))
    with pytest.raises(tikhon.TikhonError, match="class"):
        tikhon.Recipe(tikhon.FixMatch(pool), base=F.mse_loss)
