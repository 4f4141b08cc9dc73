"""Virtual outliers: neighbours by sklearn, what is drawn and kept, the two phases, and what they teach."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.math import neighbours
from tikhon.math.neighbours import kth_squared_distance, loneliest
from tikhon.methods.continual.virtual_outlier import energy, energy_hinge, virtual_outliers


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("at_once", [7, 2**24])
def test_neighbours_are_those_of_sklearn(monkeypatch, at_once) -> None:
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", at_once)
    points, queries = 100.0 + drawn(40, 5).double(), 100.0 + drawn(20, 5).double()
    for rows, k in ((queries, 1), (queries, 6), (points, 3)):
        distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points.numpy()).kneighbors(rows.numpy())
        expected = torch.from_numpy(distances[:, -1]) ** 2
        torch.testing.assert_close(kth_squared_distance(rows, points, k), expected)
        assert torch.equal(loneliest(rows, points, k, 5), expected.argsort(descending=True)[:5])
    torch.testing.assert_close(kth_squared_distance(points, points, 1), torch.zeros(40).double(), atol=1e-9, rtol=0.0)


def test_outliers_lie_around_the_loneliest_features_or_around_nothing() -> None:
    crowd, hermit = 10.0 + 0.1 * drawn(30, 4), torch.tensor([[-10.0, 10.0, 10.0, 10.0]])
    features = torch.cat([crowd, hermit])
    offsets = 0.5 * drawn(20, 4)
    found = virtual_outliers(features, offsets, 5, 2, 1)
    unit = F.normalize(features)
    distances = torch.cdist(F.normalize(hermit + offsets), unit).sort(1).values[:, 1]
    torch.testing.assert_close(found, (hermit + offsets)[distances.argsort(descending=True)[:5]])
    free = virtual_outliers(features, offsets, 6, 2, 3, "origin")
    distances = torch.cdist(offsets, unit).sort(1).values[:, 1]
    torch.testing.assert_close(free[::3], offsets[distances.argsort(descending=True)[:2]])  # each of them three times
    assert len(virtual_outliers(features, offsets, 1000, 2, 3)) == 60


def test_penalty_by_hand() -> None:
    torch.testing.assert_close(energy(torch.tensor([[0.0, 2.0]])), -torch.tensor([2.0]).exp().add(1.0).log())
    excess = torch.tensor([-1.0, 0.4, 1.0, 3.0])
    torch.testing.assert_close(energy_hinge(excess), torch.tensor([0.0, 0.08, 0.5, 2.5]))
    torch.testing.assert_close(energy_hinge(excess, squared=True), torch.tensor([0.0, 0.16, 1.0, 9.0]))


def ready(part=slice(None), **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    method = tikhon.VirtualOutlierReg(
        **{"strength": 1.0, "neighbours": 3, "edge": 5, "offsets": 10, "per_class": 4, **arguments}
    )
    recipe = tikhon.Recipe(method, output=lambda scores: scores[:, part])
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    return recipe, model, method, optimizer


def test_the_second_phase_begins_with_data_and_moves_the_classifier_alone() -> None:
    recipe, model, method, _ = ready(slice(0, 2), inner=-5.0, outer=5.0)
    x, y = drawn(20, 6), torch.arange(20) % 2
    task = F.cross_entropy(model(x)[:, :2], y)
    torch.testing.assert_close(recipe.loss(x, y), task)
    recipe.end_task([(x[:8], y[:8]), (x[8:], y[8:])])
    assert method.drawn.tensors["outliers"].shape == (8, 8)
    assert method.drawn.tensors["classes"].tolist() == [0, 1]
    loss = recipe.loss(x, y)
    parts = recipe.log()
    expected = energy_hinge(energy(model(x)[:, :2]) + 5.0).mean().item()
    assert parts["loss/virtual_outlier/inside"] == pytest.approx(expected)
    assert parts["loss/virtual_outlier/outside"] > 0.0
    found = torch.autograd.grad(loss, list(model.parameters()))
    plain = torch.autograd.grad(F.cross_entropy(model(x)[:, :2], y), list(model.parameters()))
    for one, other in zip(found[:2], plain[:2], strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(found[2][:2], plain[2][:2])
    assert (found[2][2:] == 0).all()  # outputs of other tasks
    recipe.end_task()
    torch.testing.assert_close(recipe.loss(x, y), task)


def test_energies_of_samples_and_outliers_part() -> None:
    recipe, model, method, optimizer = ready(inner=-4.0, outer=-1.5, strength=2.0, spread=0.5)
    x, y = drawn(40, 6), torch.arange(40) % 4

    def gap():
        with torch.no_grad():
            return (energy(model[2](method.drawn.tensors["outliers"])).mean() - energy(model(x)).mean()).item()

    recipe.end_task([(x, y)])
    before = gap()
    for _ in range(100):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
    assert gap() > before + 0.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="'boundary' or 'origin'"):
        tikhon.VirtualOutlierReg(centre="middle")  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="offsets must be a positive integer"):
        tikhon.VirtualOutlierReg(offsets=0)
    with pytest.raises(TikhonError, match="linear classifier"):
        ready(at="1")
    recipe, _, method, _ = ready(neighbours=30)
    with pytest.raises(TikhonError, match="30 samples a task or more; it was given 5"):
        recipe.end_task([(drawn(5, 6), torch.arange(5) % 4)])
    with pytest.raises(TikhonError, match="class indices"):
        recipe.end_task([(drawn(5, 6), torch.ones(5, 4) / 4)])
    with pytest.raises(TikhonError, match="class indices"):
        recipe.end_task([])
    assert not method.drawn.tensors
