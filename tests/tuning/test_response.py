"""Best-response layers: plain at zero response, per-sample loops, unfolded convolutions, ridge regression, surgery."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.math.best_response import responding_squared_norms, responding_weight
from tikhon.tuning.perturbation import Hyperparameters
from tikhon.tuning.response_surgery import layers_at, make_plain, make_responding

HYPERPARAMETERS = 3

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (7, 6)),
    "linear of sequences": (lambda: nn.Linear(6, 5, bias=False), (7, 4, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), (7, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), (7, 4, 9, 8)),
    "circular conv2d": (
        lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False, padding_mode="circular"),
        (7, 4, 5, 5),
    ),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def responding(make, seed: int = 0, zero: bool = False):
    """(plain copy, layer that responds, offsets): in float64, with factors that are not 0 unless `zero`."""
    torch.manual_seed(seed)
    layer = make().double()
    plain = copy.deepcopy(layer)
    state = Hyperparameters(torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), 0.5, None, 1e-3)
    make_responding(layer, state, generator())
    if not zero:
        for name in ("scaling", "bias_scaling"):
            if getattr(layer, name, None) is not None:
                nn.init.normal_(getattr(layer, name))
    return plain, layer, state


def folded_by_hand(layer, offset):
    """W + diag(A o) V and b + (C o) c, by matrices."""
    weight = layer.weight.flatten(1) + torch.diag(layer.scaling @ offset) @ layer.direction.flatten(1)
    bias = None if layer.bias is None else layer.bias + torch.diag(layer.bias_scaling @ offset) @ layer.bias_direction
    return weight.reshape(layer.weight.shape), bias


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_that_does_not_respond_is_the_plain_one_to_the_bit(kind):
    make, shape = LAYERS[kind]
    plain, layer, state = responding(make, zero=True)
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.equal(layer(x), plain(x))
    with state.at(state.perturbed(shape[0], generator())):
        assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_every_sample_has_the_output_of_its_own_weights(kind):
    make, shape = LAYERS[kind]
    _, layer, state = responding(make)
    x = torch.randn(shape, dtype=torch.float64)
    drawn = state.perturbed(shape[0], generator())
    with state.at(drawn):
        found = layer(x)
    expected = []
    for i in range(shape[0]):
        weight, bias = folded_by_hand(layer, drawn[i] - state.origin)
        expected.append(layer.operate(x[i : i + 1], weight, bias))
    torch.testing.assert_close(found, torch.cat(expected))
    assert not torch.allclose(found, layer(x))  # the current hyperparameters are others


def test_the_convolution_is_a_product_with_unfolded_patches():
    _, layer, state = responding(lambda: nn.Conv2d(3, 5, 3, padding=1, stride=2))
    x = torch.randn(4, 3, 7, 6, dtype=torch.float64)
    drawn = state.perturbed(4, generator())
    with state.at(drawn):
        found = layer(x)
    patches = F.unfold(x, 3, padding=1, stride=2)  # (B, 27, positions)
    offset = drawn - state.origin
    scale, shift = offset @ layer.scaling.T, offset @ layer.bias_scaling.T
    plain = torch.einsum("ki,bip->bkp", layer.weight.flatten(1), patches) + layer.bias[:, None]
    response = torch.einsum("ki,bip->bkp", layer.direction.flatten(1), patches)
    expected = plain + scale[..., None] * response + (shift * layer.bias_direction)[..., None]
    torch.testing.assert_close(found, expected.reshape(found.shape))


def test_squared_norms_are_those_of_the_weights():
    _, layer, state = responding(LAYERS["conv2d"][0])
    drawn = state.perturbed(4, generator())
    with state.at(drawn):
        found = layer.squared_norms()
    for i in range(4):
        torch.testing.assert_close(found[i], folded_by_hand(layer, drawn[i] - state.origin)[0].square().sum())
    with pytest.raises(RuntimeError):
        responding_squared_norms(layer.weight, layer.direction, torch.zeros(4, 99, dtype=torch.float64))


@pytest.mark.parametrize("kind", LAYERS)
def test_folding_gives_torchs_own_layer_with_the_same_parameters_and_outputs(kind):
    make, shape = LAYERS[kind]
    plain, layer, state = responding(make)
    with torch.no_grad():
        state.value += 0.7
    x = torch.randn(shape, dtype=torch.float64)
    expected, weight = layer(x), layer.weight
    make_plain(layer)
    assert type(layer) is type(plain)
    assert set(layer.state_dict()) == set(plain.state_dict())
    assert layer.weight is weight
    assert not torch.equal(weight, plain.weight)
    assert torch.equal(layer(x), expected)
    assert repr(layer) == repr(plain)
    assert vars(layer).keys() == vars(plain).keys()


def test_hooks_and_modes_stay():
    layer = nn.Linear(3, 2).eval()
    seen = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    make_responding(layer, Hyperparameters(torch.zeros(1), 0.5, None, 1e-3), generator())
    layer(torch.zeros(1, 3))
    assert seen == [1]
    assert not layer.training
    assert sorted(name for name, _ in layer.named_parameters()) == [
        "bias", "bias_direction", "bias_scaling", "direction", "scaling", "weight",
    ]  # fmt: skip


def test_samples_that_are_not_the_first_axis_are_refused():
    _, layer, state = responding(LAYERS["linear"][0])
    with state.at(state.perturbed(4, generator())), pytest.raises(TikhonError, match="first axis"):
        layer(torch.zeros(8, 6, dtype=torch.float64))


def ridge(x, y, strength):
    """argmin mean (w x - y)^2 + strength/2 |w|^2, and its derivative by log strength."""
    n, d = x.shape
    hessian = 2.0 * x.T @ x / n + strength * torch.eye(d, dtype=x.dtype)
    w = torch.linalg.solve(hessian, 2.0 * x.T @ y / n)
    return w, -strength * torch.linalg.solve(hessian, w)


def test_the_slope_of_ridge_regression_is_learned():
    torch.manual_seed(0)
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64)
    start = torch.tensor([0.5], dtype=torch.float64).log()
    state = Hyperparameters(start, 0.1, None, 1e-3)
    layer = make_responding(nn.Linear(4, 2, bias=False).double(), state, generator())
    noise = torch.tensor(
        [-1.0, 1.0], dtype=torch.float64
    )  # two perturbations of mean 0 and variance 1, for every sample
    drawn = (state.value + state.spread * noise[:, None]).detach().repeat_interleave(40, 0)
    many, values = x.repeat(2, 1), y.repeat(2, 1)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=1000, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def objective():
        optimizer.zero_grad()
        with state.at(drawn):
            penalty = 0.5 * drawn[:, 0].exp() * layer.squared_norms()
            loss = ((layer(many) - values).square().sum(1) + penalty).mean()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(objective)
    w, slope = ridge(x, y, 0.5)
    found = (layer.scaling * layer.direction).T
    torch.testing.assert_close(layer.weight.T.detach(), w, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.detach(), slope, rtol=1e-2, atol=1e-3)
    assert slope.abs().max() > 0.02


def test_surgery_refuses_what_would_go_wrong_and_changes_nothing():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
            self.head.weight = self.embedding.weight

    with pytest.raises(TikhonError, match="head is tied"):
        layers_at(Tied(), None)
    with pytest.raises(TikhonError, match=r"no plain nn\.Linear"):
        layers_at(nn.Sequential(nn.ReLU()), None)
    with pytest.raises(TikhonError, match=r"no plain nn\.Linear"):
        layers_at(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), None)
    with pytest.raises(TikhonError, match="where='1'"):
        layers_at(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")
    with pytest.raises(TikhonError, match="no module 'head'"):
        layers_at(nn.Sequential(nn.Linear(2, 2)), "head")
    with pytest.raises(TikhonError, match=r"eval mode.*where="):
        layers_at(nn.TransformerEncoderLayer(4, 2, 8), None)
    with pytest.raises(TikhonError, match="plain model"):
        layers_at(torch.compile(nn.Linear(2, 2), backend="eager"), None)
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert layers_at(model, "2") == [model[2]]
    assert layers_at(model, None) == [model[0], model[2]]


@pytest.mark.parametrize("name", ["spread", "entropy", "learning_rate"])
@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_of_the_perturbation_are_checked(name, wrong):
    given = {"spread": 0.5, "entropy": 1e-5, "learning_rate": 1e-3} | {name: wrong}
    with pytest.raises(TikhonError, match=name):
        Hyperparameters(torch.zeros(2), **given)


def test_perturbations_have_the_spread_that_they_say():
    state = Hyperparameters(torch.tensor([1.0, -2.0]), 0.7, None, 1e-3)
    torch.testing.assert_close(state.spread, torch.full((2,), 0.7))
    drawn = state.perturbed(20_000, generator())
    torch.testing.assert_close(drawn.mean(0), state.value, rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(0), state.spread, rtol=0.02, atol=0)


def test_the_step_weighs_loss_against_entropy():
    state = Hyperparameters(torch.zeros(1), 0.5, 0.1, 0.01)
    state.move((3.0 * state.value + 0.0 * state.raw_spread).sum())  # a loss to which the spread does not matter
    assert state.value.item() == pytest.approx(-0.01, rel=1e-4)
    assert state.spread.item() > 0.5
    kept = Hyperparameters(torch.zeros(1), 0.5, None, 0.01)
    kept.move(-kept.value.sum())
    assert kept.value.item() == pytest.approx(0.01, rel=1e-4)
    assert kept.spread.item() == pytest.approx(0.5)


def test_the_weight_moves_along_its_direction():
    weight, direction = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    scale = torch.tensor([0.0, 1.0, -2.0, 0.5])
    found = responding_weight(weight, direction, scale)
    for k in range(4):
        torch.testing.assert_close(found[k], weight[k] + scale[k] * direction[k])
