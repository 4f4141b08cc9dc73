"""Magnitude pruning: exact counts, the schedule, zeros under momentum, and what is left at export."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.sparsity.magnitude_pruning import cubic_sparsity, largest_kept

STEPS = 40


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))


def zeros(model: nn.Module) -> list[int]:
    return [int((one == 0).sum()) for one in model.parameters() if one.ndim == 2]


def train(method: tikhon.Method, optimizer=None, steps: int = STEPS, methods=()):
    """The model, and the numbers of zero weights after every step."""
    model = network()
    recipe = tikhon.Recipe(method, *methods)
    recipe.prepare(model)
    make = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3))
    recipe.attach(chosen := make(model.parameters()), steps=STEPS)
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        chosen.zero_grad()
        recipe.loss(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()).backward()
        chosen.step()
        seen.append(zeros(model))
    return recipe, model, seen


def test_largest_kept_by_brute_force() -> None:
    weights = [torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.linspace(-0.5, 0.7, 7)]
    for sparsity in (0.0, 0.3, 0.77, 1.0):
        ordered = sorted(abs(float(one)) for weight in weights for one in weight.flatten())
        gone = round(sparsity * 27)
        for weight, mask in zip(weights, largest_kept(weights, sparsity), strict=True):
            assert mask.shape == weight.shape
            for one, kept in zip(weight.flatten().tolist(), mask.flatten().tolist(), strict=True):
                assert kept == (abs(one) >= (ordered[gone] if gone < 27 else float("inf")))
        counts = [int(mask.sum()) for mask in largest_kept(weights, sparsity, "layer")]
        assert counts == [20 - round(20 * sparsity), 7 - round(7 * sparsity)]


def test_ties_are_broken_to_the_exact_number() -> None:
    (mask,) = largest_kept([torch.ones(10)], 0.7)
    assert mask.sum() == 3
    (none,) = largest_kept([torch.zeros(0)], 0.5)
    assert none.shape == (0,)


def test_the_schedule() -> None:
    assert cubic_sparsity(0.9, 0.0) == 0.0
    assert cubic_sparsity(0.9, 1.0) == 0.9
    assert cubic_sparsity(0.8, 0.25) == pytest.approx(0.8 * (1 - 0.75**3))


@pytest.mark.parametrize("optimizer", [None, lambda parameters: torch.optim.Adam(parameters, lr=0.01)])
def test_zeros_grow_by_the_schedule_and_stay(optimizer) -> None:
    _, model, seen = train(tikhon.MagnitudePruning(sparsity=0.8, over=(0.25, 0.75), every=2), optimizer)
    for number, counts in enumerate(seen):
        last = number if number >= 30 else number - number % 2  # pruned at even steps, and when the phase is over
        share = min(max((last / STEPS - 0.25) / 0.5, 0.0), 1.0)
        assert sum(counts) == round(cubic_sparsity(0.8, share) * 180)
    assert sum(seen[-1]) == 144
    assert (model[0].bias != 0).all()


def test_layers_alike_or_all_together() -> None:
    assert train(tikhon.MagnitudePruning(sparsity=0.5, over=(0.5, 0.5), scope="layer"))[2][-1] == [60, 30]
    together = train(tikhon.MagnitudePruning(sparsity=0.5, over=(0.5, 0.5)))[2]
    assert sum(together[-1]) == 90
    assert together[-1] != [60, 30]
    assert together[19] == [0, 0]  # before the half
    assert together[20] == together[-1]  # all at once


def test_what_is_pruned_stays_pruned_and_is_exported() -> None:
    recipe, model, _ = train(tikhon.MagnitudePruning(sparsity=0.6, over=(0.0, 0.5), every=1), steps=15)
    gone = model[0].weight == 0
    recipe, model, seen = train(tikhon.MagnitudePruning(sparsity=0.6, over=(0.0, 0.5), every=1))
    assert (model[0].weight[gone] == 0).all()
    exported = recipe.export()
    assert zeros(exported) == seen[-1]
    loss = F.cross_entropy(exported(torch.ones(1, 6)), torch.tensor([0]))
    assert loss.isfinite()


def test_state_holds_masks_and_what_was_reached() -> None:
    recipe, model, _ = train(tikhon.MagnitudePruning(sparsity=0.6, over=(0.0, 0.5), every=1), steps=15)
    other = tikhon.MagnitudePruning(sparsity=0.6, over=(0.0, 0.5), every=1)
    resumed = tikhon.Recipe(other)
    fresh = resumed.prepare(network())
    resumed.attach(torch.optim.SGD(fresh.parameters(), lr=0.1), steps=STEPS)
    resumed.load_state_dict(recipe.state_dict())
    assert 0.0 < other.reached < 0.6
    assert torch.equal(other.masks.tensors["0.weight"], model[0].weight != 0)


def test_wrong_input() -> None:
    for arguments, says in (
        ({"sparsity": 1.0}, "sparsity"),
        ({"over": (0.5, 0.2)}, "over"),
        ({"over": (0.5, 1.0)}, "over"),
        ({"every": 0}, "every"),
        ({"scope": "row"}, "scope"),
    ):
        with pytest.raises(tikhon.TikhonError, match=says):
            tikhon.MagnitudePruning(**arguments)
    recipe = tikhon.Recipe(tikhon.MagnitudePruning())
    model = recipe.prepare(network())
    with pytest.raises(tikhon.TikhonError, match="how long"):
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(tikhon.TikhonError, match="zero-keeping"):
        tikhon.Recipe(tikhon.MagnitudePruning(), tikhon.WeightNorm())
