"""DHSPG: its formulas against definitions and brute force, and what it does to training and to real networks."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tikhon
from tikhon.core.errors import TikhonError
from tikhon.methods.sparsity.dhspg import dual_strengths, redundancy, redundant_units


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The formulas --------------------------------------------------------------------------------------------------------


def test_the_dual_strength_shrinks_the_unit_and_still_descends() -> None:
    """What lambda is for: on -(g + lambda x / ||x||) both the norm and the loss fall, where a small lambda fails."""
    x, g = numbers(500, 6), numbers(500, 6, seed=1)
    norms, products, squares = x.norm(dim=1), (x * g).sum(dim=1), g.square().sum(dim=1)
    grows = products < 0
    strengths = dual_strengths(norms, products, squares, strength=1e-4, amplify=1.1, cap=1e9)
    assert (strengths[~grows] == 1e-4).all()
    for chosen, shrinks in ((strengths, True), (torch.full_like(norms, 1e-4), False)):
        direction = -(g + (chosen / norms)[:, None] * x)
        assert bool(((direction * x).sum(dim=1)[grows] < 0).all()) == shrinks
        assert ((direction * g).sum(dim=1) < 0).all()
    capped = dual_strengths(norms, products, squares, strength=0.05, amplify=1.1, cap=2.0)
    assert float(capped.min()) >= 0.05
    assert float(capped[grows].max()) <= 0.1
    scaled = dual_strengths(norms, 0.3 * products, 0.09 * squares, strength=0.3 * 0.05, amplify=1.1, cap=2.0)
    torch.testing.assert_close(scaled, 0.3 * capped)


def test_dual_strengths_of_opposed_and_of_silent_units() -> None:
    # g = -x: the bounds are both ||g||, so is their middle. A zero unit has no direction and keeps the strength.
    found = dual_strengths(torch.tensor([2.0, 0.0]), torch.tensor([-4.0, 0.0]), torch.tensor([4.0, 1.0]), 0.5, 1.1, 10)
    assert found.tolist() == [2.0, 0.5]


def test_redundancy_prefers_small_units_and_units_on_their_way_to_the_origin() -> None:
    x, g = numbers(7, 5).numpy(), numbers(7, 5, seed=1).numpy()
    cosines = [float(a @ b / ((a @ a) ** 0.5 * (b @ b) ** 0.5)) for a, b in zip(x, g, strict=True)]
    small = [1 / (float(a @ a) ** 0.5 / 5 + 1e-6) for a in x]
    lengths = [sum(one**2 for one in values) ** 0.5 for values in (cosines, small)]
    expected = [c / lengths[0] / 2 + s / lengths[1] / 2 for c, s in zip(cosines, small, strict=True)]
    norms = torch.tensor([float(a @ a) ** 0.5 for a in x], dtype=torch.float64)
    found = redundancy(norms, torch.tensor(cosines, dtype=torch.float64), torch.full_like(norms, 5))
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("multiple", [1, 2, 4])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_redundant_units_against_a_loop(share: float, multiple: int) -> None:
    sizes = (7, 1, 4, 12)
    scores = numbers(sum(sizes))
    scores[:7] += 5.0  # the whole first layer would go
    ranked = sorted(range(len(scores)), key=lambda j: -float(scores[j]))[: int(len(scores) * share)]
    expected, begin = set(), 0
    for size in sizes:
        layer = range(begin, begin + size)
        kept = max(round(sum(j not in ranked for j in layer) / multiple), 1) * multiple
        if size > multiple:
            expected |= set(sorted(layer, key=lambda j: float(scores[j]))[kept:])
        begin += size
    assert redundant_units(scores, sizes, share, multiple).nonzero().flatten().tolist() == sorted(expected)


# Training ------------------------------------------------------------------------------------------------------------


def prepared(
    model: nn.Module, steps: int = 10, lr: float = 0.1, momentum: float = 0.0, **arguments: object
) -> tuple[tikhon.Recipe, torch.optim.Optimizer, tikhon.DHSPG]:
    method = tikhon.DHSPG(**arguments)
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    recipe.attach(optimizer, steps=steps)
    return recipe, optimizer, method


@pytest.mark.parametrize("epsilon", [0.0, 0.9])
def test_a_step_is_the_optimizers_then_the_pull_then_the_half_space(epsilon: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()
    model[0].weight.data[2] *= 0.01  # small enough to turn round
    plain = copy.deepcopy(model)
    recipe, optimizer, method = prepared(model, remove=0.5, strength=1.0, epsilon=epsilon)
    x, y = torch.randn(8, 1, 8, 8, dtype=torch.float64), torch.arange(8) % 3
    recipe.loss(x, y).backward()
    optimizer.step()
    before = copy.deepcopy(plain)
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    nn.functional.cross_entropy(plain(x), y).backward()
    other.step()
    zeroed = 0
    for name, places in {"0": (0, 1), "4": (4,)}.items():
        for j, chosen in enumerate(method.redundant.tensors[name].tolist()):
            old, moved, found = (
                torch.cat([part[j].flatten() for place in places for part in net[place].parameters()]).detach()
                for net in (before, plain, model)
            )
            gradient = (old - moved) / 0.1
            pull = dual_strengths(old.norm(), old @ gradient, gradient @ gradient, 1.0, 1.1, 10.0)
            expected = moved - 0.1 * pull * old / old.norm() if chosen else moved
            if chosen and expected @ old < epsilon * old @ old:
                expected, zeroed = torch.zeros_like(expected), zeroed + 1
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
    assert zeroed >= (1 if epsilon else 0)
    assert torch.equal(model[6].weight, plain[6].weight), "the last layer is left alone"


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def mlp() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))


def units_left(model: nn.Module) -> list[int]:
    return [int((model[place].weight != 0).any(dim=1).sum()) for place in (0, 2)]


def test_it_trains_plainly_chooses_once_and_removes_the_share_asked_for() -> None:
    x, y = digits()
    model, plain = mlp(), mlp()
    recipe, optimizer, method = prepared(
        model, 400, momentum=0.9, remove=0.5, strength=tikhon.stepwise({0.0: 0.0, 0.1: 1.0}), tolerance=0.05
    )
    other = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0))
    for n in range(400):
        rows = order[torch.arange(64 * n, 64 * (n + 1)) % 1200]
        optimizer.zero_grad()
        recipe.loss(x[rows], y[rows]).backward()
        optimizer.step()
        if n < 40:
            other.zero_grad()
            nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
            other.step()
            assert all(map(torch.equal, model.parameters(), plain.parameters()))
            assert not method.redundant.tensors
        if n == 40:
            chosen = copy.deepcopy(method.redundant.tensors)
            assert sum(int(mask.sum()) for mask in chosen.values()) == int(80 * 0.55)
    assert all(torch.equal(chosen[name], mask) for name, mask in method.redundant.tensors.items())
    for place, name in ((0, "0"), (2, "2")):  # what is zero was chosen; what was not chosen is not zero
        assert not ((model[place].weight == 0).all(dim=1) & ~chosen[name]).any()
    left = sum(units_left(model))
    assert 80 - 44 <= left <= 40
    assert float((model(x[1200:]).argmax(dim=1) == y[1200:]).float().mean()) > 0.85
    expected = model(x)
    exported = recipe.export()
    assert exported[0].out_features + exported[2].out_features == left
    torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-4)


def test_the_penalty_ends_at_the_share_asked_for_and_zero_stays_zero() -> None:
    model = mlp()
    recipe, optimizer, method = prepared(model, lr=0.5, momentum=0.9, remove=0.5, strength=1e4, cap=1.0, tolerance=0.4)
    x, y = digits()

    def step() -> None:
        optimizer.zero_grad()
        recipe.loss(x[:64], y[:64]).backward()
        optimizer.step()

    step()  # zeroes every chosen unit that was not about to grow
    zero = (model[0].weight == 0).all(dim=1)
    assert (
        40
        <= 80 - sum(units_left(model))
        < int(method.redundant.tensors["0"].sum() + method.redundant.tensors["2"].sum())
    )
    chosen_and_alive = method.redundant.tensors["0"] & ~zero
    assert chosen_and_alive.any()
    before = model[0].weight.detach().clone()
    step()
    assert bool((model[0].weight[zero] == 0).all()), "momentum moves it, and it stays"
    moved = optimizer.state[model[0].weight]["momentum_buffer"]
    torch.testing.assert_close(model[0].weight[chosen_and_alive], (before - 0.5 * moved)[chosen_and_alive])


def test_the_direction_is_the_step_that_the_optimizer_took() -> None:
    """With momentum a unit may be growing though the last gradient says otherwise."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    weight = model[0].weight
    weight.data[:] = torch.tensor([[1.0, 0.0], [0.0, 9.0]])
    _recipe, optimizer, method = prepared(model, momentum=0.9, remove=0.5, strength=1e-3, cap=1e6)
    method.redundant.take({"0": torch.tensor([True, False])})
    lengths = [1.0]
    for first in (-1.0, 0.5):  # the buffer is -1, then -0.4
        weight.grad = torch.tensor([[first, 0.1], [0.0, 0.0]], dtype=torch.float64)
        optimizer.step()
        lengths.append(float(weight[0].detach().norm()))
    assert lengths[2] < lengths[1] < lengths[0]


def test_wrong_arguments_are_refused() -> None:
    for arguments in ({"remove": 1.0}, {"strength": -1.0}, {"epsilon": 1.5}, {"amplify": 0.5}, {"cap": 0.0}):
        with pytest.raises(TikhonError, match=next(iter(arguments))):
            tikhon.DHSPG(**arguments)
    with pytest.raises(TikhonError, match="multiple must be a positive integer"):
        tikhon.DHSPG(multiple=0)
    with pytest.raises(TikhonError, match=r"dhspg can remove no units.*output of the model"):
        tikhon.Recipe(tikhon.DHSPG()).prepare(nn.Sequential(nn.Linear(4, 2)))
    recipe = tikhon.Recipe(tikhon.DHSPG())
    model = recipe.prepare(mlp())
    with pytest.raises(TikhonError, match="strength follows progress: tell attach how long"):
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
