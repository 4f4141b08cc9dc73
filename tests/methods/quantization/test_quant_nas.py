"""QuantNAS: noise against rounding, prices by hand, a choice that becomes one, and what export leaves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.blocks.quantization.aqt import AQTConv2d, quantize_aqt
from tikhon.core.mixed import Choice, Mixed, choices
from tikhon.core.noisy import Noise, bit_operations
from tikhon.math.quantization import step_size, with_quantization_noise
from tikhon.math.random import centred


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_step_is_that_of_torchs_fake_quantisation(bits: int) -> None:
    values = drawn(50_000).float() + 0.3
    step = step_size(values, bits)
    zero = int(torch.round(-values.min() / step))
    rounded = torch.fake_quantize_per_tensor_affine(values, float(step), zero, 0, 2**bits - 1)
    inside = (values > values.min() + step) & (values < values.max() - step)
    assert rounded.unique().numel() <= 2**bits
    neighbours = rounded.unique().diff()
    assert neighbours.min() == pytest.approx(float(step), rel=1e-3)
    assert (rounded - values)[inside].abs().max() <= step / 2 * (1 + 1e-4)


def test_the_range_holds_zero() -> None:
    assert step_size(torch.tensor([1.0, 3.0]), 2) == 1.0
    assert step_size(torch.tensor([-3.0, -1.0]), 2) == 1.0
    assert step_size(torch.zeros(3), 4) == 0.0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_noise_is_as_large_as_the_error_of_rounding(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values, uniform = (torch.rand(400_000, generator=generator, dtype=torch.float64) for _ in range(2))
    step = step_size(values, bits)
    noise = (
        with_quantization_noise(values, uniform[None] - 0.5, torch.ones(1), torch.tensor([2.0**bits - 1.0])) - values
    )
    error = torch.round(values / step) * step - values
    assert noise.abs().max() <= step / 2
    assert noise.mean().abs() < 0.01 * step
    for one in (noise, error):
        torch.testing.assert_close(one.var(), step**2 / 12, rtol=0.02, atol=0.0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def alternatives() -> dict[str, list[nn.Module]]:
    torch.manual_seed(1)
    return {"2": [nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)), nn.Identity()]}


def ready(model: nn.Module, rate: float = 0.05, steps: int = 100, **arguments: object):
    recipe = tikhon.Recipe(method := tikhon.QuantNAS(**arguments))
    recipe.prepare(model)
    logits = [one for name, one in model.named_parameters() if name.endswith("choice.logits")]
    weights = [one for name, one in model.named_parameters() if not name.endswith("choice.logits")]
    optimizer = torch.optim.Adam([{"params": weights}, {"params": logits, "lr": rate}], lr=1e-3)
    recipe.attach(optimizer, steps=steps)
    return recipe, method, optimizer


def train(recipe, optimizer, begin: int, end: int) -> None:
    for step in range(begin, end):
        x = drawn(16, 1, 4, 4, seed=step).float()
        optimizer.zero_grad()
        recipe.loss(x, (x.mean((1, 2, 3)) > 0).long()).backward()
        optimizer.step()


def test_bit_operations_are_those_counted_by_hand() -> None:
    model = network()
    recipe, _, _ = ready(model, bits=(2, 8), alternatives=alternatives(), price=2.0)
    x = drawn(5, 1, 4, 4).float()
    recipe.loss(x, torch.zeros(5, dtype=torch.int64))
    first, last = 16 * 4 * 9, 64 * 3  # positions x outputs x inputs of a position
    three, one = 16 * 4 * 4 * 9, 16 * (4 * 2 + 2 * 4)
    found = list(bit_operations(model).values())
    by_hand = [[first * 4, first * 64], [three * 4, three * 64, one * 4, one * 64, 0.0], [last * 4, last * 64]]
    assert found == by_hand
    with torch.no_grad():
        for _, _, choice in choices(model):
            choice.logits.copy_(torch.arange(len(choice.logits)).float())
    recipe.loss(x, torch.zeros(5, dtype=torch.int64))
    shares = [torch.arange(float(len(one))).softmax(0) for one in by_hand]
    expected = sum(
        float(share @ torch.tensor(one, dtype=share.dtype)) for share, one in zip(shares, by_hand, strict=True)
    )
    uniform = sum(sum(one) / len(one) for one in by_hand)
    assert recipe.log()["loss/quant_nas/bit operations"] == pytest.approx(expected / uniform, rel=1e-5)


def test_entropy_is_torchs() -> None:
    model = network()
    recipe, _, _ = ready(model, alternatives=alternatives(), entropy=0.5)
    expected = 0.0
    for number, (_, _, choice) in enumerate(choices(model)):
        with torch.no_grad():
            choice.logits.copy_(drawn(len(choice.logits), seed=number))
        expected += float(torch.distributions.Categorical(logits=choice.logits.detach()).entropy())
    recipe.loss(drawn(5, 1, 4, 4).float(), torch.zeros(5, dtype=torch.int64))
    assert recipe.log()["loss/quant_nas/entropy"] == pytest.approx(expected, rel=1e-5)


def test_a_layer_adds_the_noise_of_every_width_by_its_share_to_weight_and_input() -> None:
    layer = nn.Linear(3, 2, bias=False).double()
    model = nn.Sequential(layer)
    ready(model, bits=(2, 4))
    weight = layer.parametrizations.weight.original
    with torch.no_grad():
        layer.choice.logits.copy_(torch.tensor([1.0, -0.5]))
    shares = torch.tensor([1.0, -0.5], dtype=torch.float64).softmax(0)
    x = drawn(5, 3)
    torch.manual_seed(3)
    found = model(x)
    torch.manual_seed(3)
    noises = [
        sum(
            s * step_size(v, b) * u
            for s, b, u in zip(shares, (2, 4), centred((2, *v.shape), v.dtype, v.device), strict=True)
        )
        for v in (x, weight)
    ]
    torch.testing.assert_close(found, F.linear(x + noises[0], weight + noises[1]))
    assert torch.equal(layer.weight, weight), "read outside a pass it is as it is"
    with pytest.raises(RuntimeError):
        model(x[:, :2])
    assert torch.equal(layer.weight, weight)
    found.square().sum().backward()
    assert layer.choice.logits.grad.abs().min() > 0


def test_a_place_is_the_mean_of_its_operations_and_in_evaluation_the_best() -> None:
    operations = [nn.Linear(3, 3), nn.Identity(), nn.Tanh()]
    choice = Choice([(2, 4), (2,), (2,)], torch.zeros(()))
    mixed = Mixed(operations, choice)
    with torch.no_grad():
        choice.logits.copy_(torch.tensor([0.5, 1.0, 1.2, -1.0]))
    x = drawn(5, 3).float()
    p = choice.logits.softmax(0)
    torch.testing.assert_close(mixed(x), (p[0] + p[1]) * operations[0](x) + p[2] * x + p[3] * x.tanh())
    assert choice.best() == (1, 2)
    assert torch.equal(mixed.eval()(x), x)
    with torch.no_grad():
        choice.logits.zero_()  # all are equal: the first
    assert torch.equal(mixed(x), operations[0](x))


def largest(model: nn.Module) -> list[float]:
    return [float(choice.shares().detach().max()) for _, _, choice in choices(model)]


def test_growing_entropy_leaves_one_candidate_and_without_it_several_stay() -> None:
    growing, constant = network(), network()
    for model, entropy in ((growing, tikhon.linear(0.0, 1.0)), (constant, 0.0)):
        recipe, _, optimizer = ready(model, steps=300, price=0.0, entropy=entropy, alternatives=alternatives())
        train(recipe, optimizer, 0, 300)
    assert min(largest(growing)) > 0.95
    assert max(largest(constant)) < 0.95
    model, x = growing, drawn(64, 1, 4, 4).float()
    for module in model.modules():
        if isinstance(module, Noise):
            module.eval()  # the mixture without noise
    torch.testing.assert_close(model(x), model.eval()(x), atol=0.1, rtol=0.1)


def test_a_high_price_buys_the_cheapest_and_none_more() -> None:
    chosen = {}
    for price in (0.0, 10.0):
        recipe, method, optimizer = ready(network(), steps=200, price=price, entropy=tikhon.linear(0.0, 0.1))
        train(recipe, optimizer, 0, 200)
        recipe.export()
        chosen[price] = sum(method.widths.values())
    assert chosen[10.0] == 3 * 2
    assert chosen[0.0] > chosen[10.0]


def test_export_is_plain_and_says_what_was_chosen() -> None:
    model, given = network(), alternatives()
    recipe, method, _ = ready(model, alternatives=given)
    with torch.no_grad():
        for _, _, choice in choices(model):
            choice.logits[1] = 1.0
        model[2].choice.logits[4] = 2.0  # (first alternative, 4 bits)
    x = drawn(5, 1, 4, 4).float()
    recipe.loss(x, torch.zeros(5, dtype=torch.int64))
    expected = model.eval()(x)
    exported = recipe.export()
    assert torch.equal(exported(x), expected)
    assert torch.equal(exported.train()(x), expected)
    assert method.operations == {"2": 1}
    assert method.widths == {"0": 4, "2.0": 4, "2.1": 4, "5": 4}
    assert not any("choice" in name or "parametrizations" in name for name in exported.state_dict())
    assert type(exported[2][0]) is nn.Conv2d
    assert type(given["2"][0][0]) is nn.Conv2d, "the caller's modules stay as they are"
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in exported.modules())
    quantize_aqt(exported, method.widths | {"5": 8})
    assert type(exported[2][1]) is AQTConv2d
    assert exported[2][1].quantizer.bits == 4
    assert exported[5].quantizer.bits == 8


def test_with_alternatives_it_resumes_to_the_bit() -> None:
    arguments = {"steps": 6, "alternatives": alternatives(), "price": 0.1, "entropy": tikhon.linear(0.0, 1.0)}
    model = network()
    recipe, _, optimizer = ready(model, **arguments)
    torch.manual_seed(7)
    train(recipe, optimizer, 0, 3)
    saved = copy.deepcopy([one.state_dict() for one in (model, recipe, optimizer)])
    random = torch.get_rng_state()
    train(recipe, optimizer, 3, 6)
    other = network()
    again, _, resumed = ready(other, **arguments)
    for one, state in zip((other, again, resumed), saved, strict=True):
        one.load_state_dict(state)
    torch.set_rng_state(random)
    train(again, resumed, 3, 6)
    ended = model.state_dict()
    assert all(torch.equal(value, ended[name]) for name, value in other.state_dict().items())


def test_with_alternatives_it_trains_in_mixed_precision_and_compiles() -> None:
    model = network()
    recipe, _, optimizer = ready(model, alternatives=alternatives())
    with torch.autocast("cpu", torch.bfloat16):
        train(recipe, optimizer, 0, 3)
    assert all(one.isfinite().all() for one in model.parameters())
    torch._dynamo.reset()
    x = drawn(5, 1, 4, 4).float()
    for mode in (True, False):
        model.train(mode)
        torch.manual_seed(0)
        compiled = torch.compile(model, backend="eager", fullgraph=True)(x)
        torch.manual_seed(0)
        torch.testing.assert_close(compiled, model(x))


def penalty() -> tikhon.EquivariancePenalty:
    half_turn = torch.stack([torch.eye(2), -torch.eye(2)])
    return tikhon.EquivariancePenalty({"half turn": (half_turn, torch.eye(2).repeat(2, 1, 1))})


@pytest.mark.parametrize(
    ("key", "other"), [("ibp", lambda: tikhon.IBPTraining(eps=0.1)), ("soft_equivariance", penalty)]
)
def test_alternatives_are_refused_beside_what_must_know_every_layer(key, other) -> None:
    given = {"2": [nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))]}
    with pytest.raises(TikhonError, match=rf"{key} and quant_nas cannot run together.*lasting layers.*Leave one"):
        tikhon.Recipe(tikhon.QuantNAS(alternatives=given), other())
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    recipe = tikhon.Recipe(tikhon.QuantNAS(alternatives={}), other())
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1), steps=2)
    recipe.loss(drawn(4, 2).float(), torch.tensor([0, 1, 0, 1])).backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": ()}, "different integers"),
        ({"bits": (4, 4)}, "different integers"),
        ({"bits": (1, 4)}, "from 2 to 16"),
        ({"bits": (2.0, 4)}, "different integers"),
        ({"price": -1.0}, "price"),
        ({"entropy": -1.0}, "entropy"),
        ({"alternatives": {"22": [nn.Identity()]}}, "'22'"),
        ({"alternatives": {"2": []}}, "must give '2' modules"),
        ({"alternatives": {"2": [F.relu]}}, "must give '2' modules"),
        ({"alternatives": {"inner": [nn.Identity()], "inner.0": [nn.Identity()]}}, "'inner.0' inside it"),
        ({"where": "norm"}, "no linear or convolution layer"),
        ({"alternatives": {"2": [nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))]}}, "parametrised already"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(arguments, message) -> None:
    model = network()
    model.inner, model.norm = nn.Sequential(nn.Linear(3, 3)), nn.LayerNorm(3)
    before = list(model.state_dict())
    with pytest.raises(TikhonError, match=message):
        tikhon.Recipe(tikhon.QuantNAS(**arguments)).prepare(model)
    assert list(model.state_dict()) == before
