"""AQT: torch's fake quantisation, the published arithmetic in numpy, true integers, bounds and what they cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.blocks.quantization.aqt import AQTConv2d, AQTLinear, freeze_bounds, integers_of, quantize_aqt
from tikhon.math.quantization import channel_scale, floor_to_unsigned, round_to_signed

EPS = float(np.finfo(np.float32).eps)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def frozen(layer, *batches):
    layer = layer.double().train()
    for inputs in batches:
        layer(inputs)
    freeze_bounds(layer)
    return layer


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_values_and_gradient_are_those_of_torchs_fake_quantisation(bits) -> None:
    top = 2 ** (bits - 1) - 1
    weight, gradient = drawn(5, 7, 3).float().requires_grad_(), drawn(5, 7, 4).float()[..., :3]
    scale = channel_scale(weight, bits) * torch.tensor([1.0, 1.3, 2.0, 0.7, 3.0]).reshape(-1, 1, 1)  # some are cut
    found = round_to_signed(weight * scale, bits) / scale
    reference = weight.detach().clone().requires_grad_()
    steps = 1.0 / scale.flatten()
    expected = torch.fake_quantize_per_channel_affine(reference, steps, torch.zeros(5), 0, -top, top)
    torch.testing.assert_close(found, expected)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(weight.grad, reference.grad)
    assert (weight.grad == 0).any()


def test_unsigned_integers_are_rounded_down_and_cut() -> None:
    values = torch.tensor([-0.5, 0.0, 3.9, 15.5, 16.5], requires_grad=True)
    integers = floor_to_unsigned(values, 4)
    assert integers.tolist() == [0.0, 0.0, 3.0, 15.0, 15.0]
    integers.sum().backward()
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("positive", [False, True])
def test_it_is_the_published_arithmetic(positive) -> None:
    """matmul(RoundAndClip(x s), RoundAndClip(s^-1 w t)) t^-1 with bounds from running means of the extremes."""
    batches = [drawn(9, 6), drawn(9, 7)[:, :6], drawn(9, 8)[:, :6]]
    batches = [one.relu() if positive else one for one in batches]
    layer = frozen(AQTLinear(6, 4, bits=4, positive=positive), *batches)
    high, low = np.zeros(6), np.zeros(6)
    for one in batches:
        for channel, column in enumerate(one.numpy().T):
            counted = column[column != 0]
            high[channel] += 0.1 * (counted.max() - high[channel])
            low[channel] += 0.1 * (counted.min() - low[channel])
    bound = np.maximum(abs(high), abs(low)) + EPS
    x = 0.2 * batches[0].numpy()
    if positive:
        s = 16 / bound
        q = np.clip(np.floor(x * s), 0, 15)
    else:
        s = 7 / bound
        q = np.clip(np.floor(x * s + 0.5), -7, 7)
    rows = layer.weight.detach().numpy() / s
    t = 7 / (abs(rows).max(1, keepdims=True) + EPS)
    r = np.clip(np.floor(rows * t + 0.5), -7, 7)
    expected = q @ r.T / t.T + layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def conv(**named):
    return AQTConv2d(4, 6, 3, padding=1, stride=2, groups=2, **named)


def test_a_convolution_is_torchs_on_the_quantised_operands() -> None:
    layer = frozen(conv(bits=4), drawn(2, 4, 5, 5))
    x = 0.1 * drawn(2, 4, 5, 6)
    s = layer.quantizer.input_scale()
    q = round_to_signed(x * s[:, None, None], 4)
    by_weight = torch.stack([s[:2]] * 3 + [s[2:]] * 3)[:, :, None, None]
    rows = layer.weight / by_weight
    r = round_to_signed(rows * channel_scale(rows, 4), 4) / channel_scale(rows, 4)
    expected = F.conv2d(q, r, layer.bias, 2, 1, 1, 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-12)
    # In real numbers it stands for the plain convolution.
    assert (layer(x) - F.conv2d(x, layer.weight, layer.bias, 2, 1, 1, 2)).abs().max() < 0.1


def test_deployed_it_is_integer_arithmetic() -> None:
    layer = frozen(AQTLinear(40, 5, bits=8), drawn(16, 40)).float()
    x = 0.1 * drawn(16, 41)[:, :40].float()
    weight, inputs, outputs = integers_of(layer)
    assert weight.dtype == torch.int8
    q = (x * inputs + 0.5).floor().clamp(-127, 127).to(torch.int32)
    expected = (q @ weight.T.to(torch.int32)) / outputs + layer.bias
    assert torch.equal(layer(x), expected)
    grouped = integers_of(frozen(conv(bits=4), drawn(2, 4, 5, 5)))
    assert grouped.weight.shape == (6, 2, 3, 3)
    assert grouped.weight.abs().amax() == 7


def test_inputs_stay_whole_until_bounds_are_frozen_and_bounds_stay_then() -> None:
    layer = AQTLinear(6, 4, bits=4).double()
    x = drawn(9, 6)
    scale = channel_scale(layer.weight, 4)
    expected = F.linear(x, round_to_signed(layer.weight * scale, 4) / scale, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    followed = layer.quantizer.highest.clone()
    layer.eval()(5.0 * x)
    assert torch.equal(layer.quantizer.highest, followed)
    layer.train()(torch.where(torch.arange(6) == 2, torch.nan, 0.0 * x))  # neither zeros nor NaN count
    assert torch.equal(layer.quantizer.highest, followed)
    freeze_bounds(layer)
    assert not torch.allclose(layer(x), expected)
    layer(5.0 * x)
    assert torch.equal(layer.quantizer.highest, followed)
    other = AQTLinear(6, 4, bits=4).double()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


def test_a_model_becomes_one_of_four_bits_between_ends_of_eight() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 3)
    )
    parameters, state = list(model.parameters()), torch.get_rng_state()
    assert quantize_aqt(model, positive=("2",)) is model
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    layers = [module for module in model if hasattr(module, "quantizer")]
    assert [layer.quantizer.bits for layer in layers] == [8, 4, 4, 8]
    assert [layer.quantizer.positive for layer in layers] == [False, True, False, False]
    recipe = tikhon.Recipe(tikhon.SAM(0.05))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    for step in range(4):
        if step == 2:
            freeze_bounds(model)
        optimizer.zero_grad()
        recipe.loss(torch.randn(8, 1, 6, 6), torch.arange(8) % 3).backward()
        optimizer.step()
    assert type(recipe.export()[0]) is AQTConv2d
    torch._dynamo.reset()
    x = torch.randn(2, 1, 6, 6)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_bits_by_name_are_of_these_layers_alone() -> None:
    model = quantize_aqt(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)), {"1": 5, "2": 2})
    assert type(model[0]) is nn.Linear
    assert [layer.quantizer.bits for layer in model[1:]] == [5, 2]


def test_what_does_not_fit_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    for bits, message in (({"0": 4, "00": 4}, "'0'"), ({"0": 4, "1": 16}, "from 2 to 8")):
        with pytest.raises(TikhonError, match=message):
            quantize_aqt(model, bits)
        assert type(model[0]) is nn.Linear
    with pytest.raises(TikhonError, match="from 2 to 8"):
        AQTLinear(3, 2, bits=1)
    with pytest.raises(TikhonError, match="'0'"):
        quantize_aqt(nn.Sequential(nn.Linear(3, 2)), positive=("00",))
    with pytest.raises(TikhonError, match=r"no plain nn\.Linear"):
        quantize_aqt(nn.Sequential(nn.ReLU()))
    with pytest.raises(TikhonError, match="call quantize_aqt"):
        freeze_bounds(nn.Linear(3, 2))
    with pytest.raises(TikhonError, match="not frozen"):
        integers_of(AQTLinear(3, 2))
