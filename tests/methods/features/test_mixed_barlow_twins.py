"""Mixed Barlow Twins: correlation matrices by loops, linear networks in closed form, and training without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tikhon
from tikhon import TikhonError
from tikhon.math.decorrelation import barlow_twins, standardised
from tikhon.methods.features.mixed_barlow_twins import mixing_gap


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_correlations_are_those_of_numpy() -> None:
    z1, z2 = drawn(20, 3), drawn(20, 3, seed=1)
    c = np.corrcoef(z1.T, z2.T)[:3, 3:]
    invariance, redundancy = barlow_twins(standardised(z1), standardised(z2))
    assert invariance.item() == pytest.approx(((1 - np.diag(c)) ** 2).sum())
    assert redundancy.item() == pytest.approx((c**2).sum() - (np.diag(c) ** 2).sum())


def test_the_gap_is_that_of_the_four_matrices() -> None:
    one, other, mixed = (standardised(drawn(6, 3, seed=seed)) for seed in range(3))
    permutation, share = torch.tensor([2, 0, 1, 5, 3, 4]), 0.3
    total = 0.0
    for view in (one, other):
        for i in range(3):
            for j in range(3):
                found = (mixed[:, i] * view[:, j]).mean()
                wanted = share * (one[:, i] * view[:, j]).mean()
                wanted += (1 - share) * (other[permutation, i] * view[:, j]).mean()
                total += 0.5 * float(found - wanted) ** 2
    assert mixing_gap(one, other, mixed, permutation, share).item() == pytest.approx(total)


def test_features_that_mix_as_their_inputs_have_no_gap() -> None:
    x, y, weight = drawn(8, 4), drawn(8, 4, seed=1), drawn(4, 3, seed=2)
    permutation = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    mixed = (0.6 * x + 0.4 * y[permutation]) @ weight
    assert mixing_gap(x @ weight, y @ weight, mixed, permutation, 0.6).item() == pytest.approx(0.0, abs=1e-20)
    assert mixing_gap(x @ weight, y @ weight, mixed.relu(), permutation, 0.6) > 0.01


def test_a_dead_feature_has_no_correlation_and_a_finite_gradient() -> None:
    z = drawn(8, 3)
    z[:, 1] = 2.0
    z.requires_grad_()
    invariance, _ = barlow_twins(standardised(z), standardised(drawn(8, 3, seed=1)))
    invariance.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).double()
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.detach())
        return self.layers(inputs)


def ready(**arguments: float) -> tuple[tikhon.Recipe, Network, torch.optim.Optimizer]:
    recipe = tikhon.Recipe(tikhon.MixedBarlowTwins(**arguments))
    model = recipe.prepare(Network())
    recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01))
    return recipe, model, optimizer


def views(seed: int) -> Tensor:
    x = drawn(64, 5)
    return torch.cat([x + 0.1 * drawn(64, 5, seed=2 * seed + 1), x + 0.1 * drawn(64, 5, seed=2 * seed + 2)])


def test_without_labels_it_decorrelates_features_and_agrees_on_views() -> None:
    recipe, model, optimizer = ready(redundancy=0.05)
    for step in range(150):
        optimizer.zero_grad()
        recipe.loss(views(step)).backward()
        optimizer.step()
    one, other = (standardised(half) for half in model(views(999)).detach().chunk(2))
    c = one.T @ other / len(one)
    assert c.diagonal().min() > 0.9
    assert (c - torch.diag(c.diagonal())).abs().max() < 0.25


def test_the_loss_is_that_of_mixed_samples_in_a_pass_that_moves_no_statistics() -> None:
    recipe, model, _ = ready(redundancy=0.1, mixing=4.0)
    x = 0.1 * drawn(16, 5)
    row = torch.arange(8.0, dtype=torch.float64)
    x[:, :4] = 0.0
    x[:8, 0], x[:8, 1] = 1.0, row  # the first view says in two columns who it is, the second in two others
    x[8:, 2], x[8:, 3] = 1.0, row
    loss = recipe.loss(x)
    whole, mixed = model.seen
    share = mixed[0, 0]
    permutation = (mixed[:, 3] / (1.0 - share)).round().long()
    assert torch.equal(whole, x)
    assert sorted(permutation.tolist()) == list(range(8))
    torch.testing.assert_close(mixed, share * x[:8] + (1.0 - share) * x[8:][permutation])
    assert int(model.layers[1].num_batches_tracked) == 1
    one, other = (standardised(half) for half in model(x).chunk(2))
    invariance, redundancy = barlow_twins(one, other)
    gap = mixing_gap(one, other, standardised(model(mixed)), permutation, float(share))
    torch.testing.assert_close(loss, invariance + 0.1 * redundancy + 0.4 * gap)


def test_without_mixing_there_is_no_second_pass() -> None:
    recipe, model, _ = ready(mixing=0.0)
    recipe.loss(views(0)).backward()
    assert len(model.seen) == 1


def test_what_does_not_fit_is_refused() -> None:
    recipe, _, _ = ready()
    for wrong in (drawn(5, 5), drawn(2, 5)):
        with pytest.raises(TikhonError, match="two views"):
            recipe.loss(wrong)
    with pytest.raises(TikhonError, match="tensor or a mapping"):
        recipe.loss((drawn(4, 5), drawn(4, 5)))
    with pytest.raises(TikhonError, match="cannot run together"):
        tikhon.Recipe(tikhon.MixedBarlowTwins(), tikhon.ELR())
    with pytest.raises(TikhonError, match="alpha"):
        tikhon.MixedBarlowTwins(alpha=0.0)
