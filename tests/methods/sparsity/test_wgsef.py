"""The group sparse envelope: against brute force and a general optimiser, and what it does to real networks."""

import copy
import pickle
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tikhon
from tikhon.core.errors import TikhonError
from tikhon.core.pruning import apply_plan, parameter_count
from tikhon.methods.sparsity.wgsef import GroupSparseEnvelope, envelope, envelope_prox


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The envelope's value ------------------------------------------------------------------------------------------------


def by_slsqp(norms: Tensor, k: float, d: Tensor) -> float:
    """min over u, by a general optimiser."""
    a, cost = norms.numpy(), d.numpy()
    result = minimize(
        lambda u: 0.5 * np.sum(cost * a**2 / u),
        np.full(len(a), min(1.0, 0.9 * k / cost.sum())),
        jac=lambda u: -0.5 * cost * a**2 / u**2,
        bounds=[(1e-9, 1.0)] * len(a),
        constraints=LinearConstraint(cost[None], ub=k),
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return float(result.fun)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [0.7, 1, 2, 3.5, 6])
def test_value_against_a_general_optimiser(seed: int, k: float) -> None:
    norms, d = numbers(6, seed=seed) + 0.01, numbers(6, seed=seed + 100) + 0.5
    assert float(envelope(norms, k)) == pytest.approx(by_slsqp(norms, k, torch.ones(6)), rel=1e-6)
    assert float(envelope(norms, k, d)) == pytest.approx(by_slsqp(norms, k, d), rel=1e-6)


def half_squared_k_support_norm(a: Tensor, k: int) -> float:
    """The closed form of Argyriou, Foygel and Srebro 2012, proposition 2.1."""
    z = a.abs().sort(descending=True).values
    for r in range(k):
        tail = float(z[k - r - 1 :].sum()) / (r + 1)
        before = float(z[k - r - 2]) if k - r - 2 >= 0 else float("inf")
        if before > tail >= float(z[k - r - 1]):
            return 0.5 * (float(z[: k - r - 1].square().sum()) + (r + 1) * tail**2)
    raise AssertionError("no r fits")


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_value_is_half_the_squared_k_support_norm(k: int) -> None:
    for seed in range(5):
        a = numbers(10, seed=seed) ** 3 + 1e-6
        assert float(envelope(a, k)) == pytest.approx(half_squared_k_support_norm(a, k), rel=1e-12)


def test_value_is_the_biconjugate_on_sparse_vectors_and_below_the_function() -> None:
    # On vectors with at most k groups it is half the squared norm; it is the largest convex function that is.
    for kept in combinations(range(5), 2):
        a = torch.zeros(5, dtype=torch.float64)
        a[list(kept)] = numbers(2, seed=sum(kept)) + 0.1
        assert float(envelope(a, 2)) == pytest.approx(float(0.5 * a.square().sum()), rel=1e-14)
        assert float(envelope(a, 1)) > float(0.5 * a.square().sum())
    x, y = numbers(50, 7, seed=1), numbers(50, 7, seed=2)
    assert (envelope((x + y) / 2, 3) <= (envelope(x, 3) + envelope(y, 3)) / 2 + 1e-12).all()


def test_value_has_the_right_gradient_and_curvature() -> None:
    norms = (numbers(3, 6, seed=4) + 0.05).requires_grad_()
    d = (numbers(6, seed=5) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: envelope(a, 2.3), norms)
    assert torch.autograd.gradcheck(lambda a, w: envelope(a, 2.3, w), (norms, d))
    assert torch.autograd.gradgradcheck(lambda a: envelope(a, 2.3), norms)
    assert torch.autograd.gradcheck(lambda a: envelope_prox(a, 0.3, 2.3), norms)


# The proximal map ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("strength", "k"), [(0.01, 1), (0.3, 2), (0.3, 2.5), (2.0, 1), (5.0, 3), (0.1, 6)])
@pytest.mark.parametrize("weighted", [False, True])
def test_prox_against_a_general_optimiser(seed: int, strength: float, k: float, weighted: bool) -> None:
    """Minimise 1/2 |x - t|^2 + strength / 2 sum d x^2 / u over x and u together, knowing nothing of c."""
    t = (numbers(5, seed=seed) + 0.02).numpy()
    d = (numbers(5, seed=seed + 50) + 0.5).numpy() if weighted else np.ones(5)

    def objective(z: np.ndarray) -> float:
        x, u = z[:5], z[5:]
        return float(0.5 * np.sum((x - t) ** 2) + 0.5 * strength * np.sum(d * x**2 / u))

    def slope(z: np.ndarray) -> np.ndarray:
        x, u = z[:5], z[5:]
        return np.concatenate([x - t + strength * d * x / u, -0.5 * strength * d * x**2 / u**2])

    start = np.concatenate([0.5 * t, np.full(5, min(0.9, 0.9 * k / d.sum()))])
    result = minimize(
        objective,
        start,
        jac=slope,
        bounds=[(0.0, None)] * 5 + [(1e-7, 1.0)] * 5,
        constraints=LinearConstraint(np.concatenate([np.zeros(5), d])[None], ub=k),
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-15},
    )
    found = envelope_prox(torch.tensor(t), strength, k, torch.tensor(d) if weighted else None).numpy() * t
    np.testing.assert_allclose(found, result.x[:5], atol=2e-4)
    best = 0.5 * np.sum((found - t) ** 2) + strength * float(envelope(torch.tensor(found), k, torch.tensor(d)))
    assert best <= objective(result.x) + 1e-9


@pytest.mark.parametrize("n", [2, 7, 64, 1000])
def test_prox_satisfies_its_own_equations(n: int) -> None:
    """The shares add up to k exactly, and grow with the norms."""
    for seed, spread in enumerate([1, 4, 12]):
        t = 10 ** (-spread * numbers(n, seed=seed))
        for k in (1, max(1, n // 3), n - 1):
            for strength in (1e-6, 1e-2, 1.0, 30.0):
                factor = envelope_prox(t, strength, k)
                u = factor * strength / (1 - factor)  # factor = u / (u + strength)
                assert float(u.sum()) == pytest.approx(k, rel=1e-9)
                assert float(u.max()) <= 1 + 1e-9
                order = t.argsort()
                assert (factor[order].diff() >= -1e-12).all()


def test_prox_with_a_gap_leaves_exactly_k() -> None:
    # t_{k+1} / t_k below strength / (1 + strength): all beyond the k-th are exactly zero, not almost.
    for seed in range(20):
        large, small = 1 + numbers(7, seed=seed), 0.3 * numbers(9, seed=seed + 1)
        for dtype in (torch.float32, torch.float64):
            t = torch.cat([small, large]).to(dtype)
            factor = envelope_prox(t, 0.5, 7)
            assert (factor[:9] == 0).all()
            torch.testing.assert_close(factor[9:], torch.full((7,), 1 / 1.5, dtype=dtype))


def test_prox_edges() -> None:
    t = numbers(6) + 0.1
    shrunk = torch.full_like(t, 1 / 1.25)
    torch.testing.assert_close(envelope_prox(t, 0.25, 6), shrunk)  # k >= n: ridge
    torch.testing.assert_close(envelope_prox(t, 0.25, 60), shrunk)
    assert torch.equal(envelope_prox(t, 0.0, 2), torch.ones_like(t))  # strength 0: nothing
    assert torch.equal(envelope_prox(torch.zeros(4), 0.1, 2) * 0, torch.zeros(4))  # all zero: finite
    assert float(envelope(torch.zeros(4), 2)) == 0.0
    sparse = torch.tensor([0.0, 3.0, 0.0, 4.0])  # no more than k groups: ridge on them
    torch.testing.assert_close(envelope_prox(sparse, 0.25, 2)[[1, 3]], torch.tensor([0.8, 0.8]))
    ties = envelope_prox(torch.full((5,), 2.0), 0.5, 2)  # nobody is preferred: u = 2/5 each
    torch.testing.assert_close(ties, torch.full((5,), 0.4 / 0.9))
    assert float(envelope_prox(torch.tensor([7.0]), 1.0, 1)) == 0.5
    extreme = torch.tensor([1e-30, 1e30, 1e-38, 0.0, 1e20])
    assert envelope_prox(extreme, 1e-3, 2).isfinite().all()
    batched = torch.stack([t, 2 * t])  # a batch with its own k and strengths
    both = envelope_prox(batched, torch.tensor([[0.1], [0.4]], dtype=t.dtype), torch.tensor([[2], [3]]))
    torch.testing.assert_close(both[0], envelope_prox(t, 0.1, 2))
    torch.testing.assert_close(both[1], envelope_prox(2 * t, 0.4, 3))
    assert torch.equal(envelope_prox(t.bfloat16(), 0.25, 2), envelope_prox(t.bfloat16().float(), 0.25, 2))


def test_wrong_numbers_are_refused() -> None:
    for k in (0, -1.0, float("nan")):
        with pytest.raises(TikhonError, match="k must be a positive number"):
            envelope(torch.ones(3), k)
    with pytest.raises(TikhonError, match="at least 0"):
        envelope_prox(torch.ones(3), -0.1, 2)
    for arguments in ({"strength": -1.0}, {"keep": 0.0}, {"keep": -3}, {"keep": tikhon.linear(1.0, 32)}):
        with pytest.raises(TikhonError, match=r"strength|keep"):
            GroupSparseEnvelope(**arguments)


# The method ----------------------------------------------------------------------------------------------------------


def prepared(model: nn.Module, *, lr: float = 0.1, **arguments: object) -> tuple[tikhon.Recipe, torch.optim.Optimizer]:
    recipe = tikhon.Recipe(GroupSparseEnvelope(**arguments))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    recipe.attach(optimizer, steps=10)
    return recipe, optimizer


def test_one_step_is_the_gradient_step_then_the_map_of_whole_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()
    plain = copy.deepcopy(model)
    recipe, optimizer = prepared(model, strength=2.0, keep=0.5, lr=0.1)
    x, y = torch.randn(8, 1, 8, 8, dtype=torch.float64), torch.arange(8) % 3
    recipe.loss(x, y).backward()
    optimizer.step()
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    nn.functional.cross_entropy(plain(x), y).backward()
    other.step()
    conv, norm, hidden = plain[0], plain[1], plain[4]
    units = torch.cat([conv.weight.flatten(1), conv.bias[:, None], norm.weight[:, None], norm.bias[:, None]], dim=1)
    factor = envelope_prox(units.norm(dim=1), 0.1 * 2.0, 3)
    torch.testing.assert_close(model[0].weight, conv.weight * factor[:, None, None, None])
    torch.testing.assert_close(model[1].bias, norm.bias * factor)
    torch.testing.assert_close(model[1].weight, norm.weight * factor)
    rows = torch.cat([hidden.weight, hidden.bias[:, None]], dim=1)
    factor = envelope_prox(rows.norm(dim=1), 0.1 * 2.0, round(0.5 * 5))
    torch.testing.assert_close(model[4].bias, hidden.bias * factor)
    assert torch.equal(model[6].weight, plain[6].weight), "the last layer is left alone"


def test_keep_is_a_fraction_or_a_number_and_may_follow_a_schedule() -> None:
    def left(keep: object, steps: int) -> int:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 2))
        recipe, optimizer = prepared(model, strength=50.0, keep=keep, lr=1.0)
        for _ in range(steps):
            model.zero_grad()
            (0 * recipe.loss(torch.randn(3, 4), torch.tensor([0, 1, 0]))).backward()
            optimizer.step()
        return int((model[0].weight != 0).any(dim=1).sum())

    # Of equals none is preferred, so a few more than k are left after one step of a strong map.
    few, some, many = left(0.1, 1), left(10, 1), left(1.0, 1)
    assert 2 <= few < some < many == 20
    assert some >= 10
    schedule = tikhon.stepwise({0.0: 1.0, 0.25: 0.1})
    assert left(schedule, 1) == 20
    assert left(schedule, 5) < 20


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def trained(model: nn.Module, epochs: int, shape: tuple[int, ...], **arguments: object) -> tuple[tikhon.Recipe, float]:
    x, y = digits()
    x = x.reshape(-1, *shape)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]
    recipe = tikhon.Recipe(GroupSparseEnvelope(**arguments))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe.attach(optimizer, epochs=epochs)
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=generator)].split(64):
            optimizer.zero_grad()
            recipe.loss(x[rows], y[rows]).backward()
            optimizer.step()
        recipe.end_epoch()
    model.eval()
    accuracy = float((model(x[test]).argmax(dim=1) == y[test]).float().mean())
    return recipe, accuracy


def test_digits_mlp_ends_with_about_k_units_and_exports_them_only() -> None:
    def mlp() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    model = mlp()
    recipe, accuracy = trained(model, 40, (64,), strength=0.1, keep=0.5)
    left = int((model[0].weight != 0).any(dim=1).sum())
    assert 32 <= left <= 34
    assert accuracy > 0.94
    x, _ = digits()
    expected = model(x)
    before = parameter_count(model)
    exported = recipe.export()
    assert (exported[0].out_features, exported[2].in_features) == (left, left)
    assert parameter_count(exported) < 0.6 * before
    torch.testing.assert_close(exported(x), expected, rtol=1e-5, atol=1e-5)
    plan = recipe.methods["wgsef"].plan
    fresh = apply_plan(mlp(), plan).eval()
    fresh.load_state_dict(exported.state_dict())
    assert torch.equal(fresh(x), exported(x))
    dense = mlp()
    trained(dense, 3, (64,), strength=0.0, keep=0.5)
    assert int((dense[0].weight != 0).any(dim=1).sum()) == 64


def test_cnn_with_batch_norm_is_pruned_and_answers_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(8 * 16, 16), nn.Sigmoid(), nn.Linear(16, 10)),
    )
    recipe, _ = trained(model, 3, (1, 8, 8), strength=0.5, keep=0.25)
    x = digits()[0].reshape(-1, 1, 8, 8)
    expected = model(x)
    left = [int((model[place].weight.flatten(1) != 0).any(dim=1).sum()) for place in (0, 5)]
    assert left[0] < 8
    assert left[1] < 16
    exported = recipe.export()
    assert [exported[0].out_channels, exported[1].num_features] == [left[0]] * 2
    assert [exported[5].in_features, exported[5].out_features] == [16 * left[0], left[1]]
    torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)


def test_it_copies_and_pickles() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    recipe, _ = prepared(model)
    method = recipe.methods["wgsef"]
    assert copy.deepcopy(method)._removable == pickle.loads(pickle.dumps(method))._removable == method._removable


def test_frozen_layers_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    recipe, optimizer = prepared(model, strength=50.0, keep=1)
    recipe.loss(torch.randn(3, 4), torch.tensor([0, 1, 0])).backward()
    optimizer.step()
    assert torch.equal(model[0].weight, before)


# Models that cannot be used -----------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h) if h.sum() > 0 else self.head(-h)


def test_a_model_that_cannot_be_traced_is_refused_and_a_part_is_the_way_out() -> None:
    model = Branching()
    with pytest.raises(TikhonError, match=r'cannot trace Branching.*where="backbone"'):
        tikhon.Recipe(GroupSparseEnvelope()).prepare(model)
    recipe, optimizer = prepared(model, where="body", strength=20.0, keep=0.2)
    recipe.loss(torch.randn(8, 4), torch.arange(8) % 2).backward()
    optimizer.step()
    model.eval()
    x = torch.randn(8, 4)
    expected = model(x)
    exported = recipe.export()
    assert exported.body[0].out_features < 6
    torch.testing.assert_close(exported(x), expected)


def test_models_without_removable_units_are_refused() -> None:
    with pytest.raises(TikhonError, match=r"can remove no units.*0: it is an output of the model"):
        tikhon.Recipe(GroupSparseEnvelope()).prepare(nn.Sequential(nn.Linear(4, 2)))
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(TikhonError, match=r"can remove no units.*2: it is an output"):
        tikhon.Recipe(GroupSparseEnvelope(where="2")).prepare(model)
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(TikhonError, match="0 is parametrised and may not keep zero"):
        tikhon.Recipe(GroupSparseEnvelope()).prepare(model)
