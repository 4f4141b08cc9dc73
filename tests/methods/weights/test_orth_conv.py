"""Orthogonal convolutions: the penalty against the dense matrix of the convolution, and what training with it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

import tikhon
from tikhon.methods.weights.orth_conv import conv_orth_dist, deconv_orth_dist, orth_dist, orthogonality

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def random_kernel(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def circular_matrix(
    kernel: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int, outputs: Sequence[int]
) -> Tensor:
    """The matrix (M N, C S N) of the circular convolution, from its effect on the identity."""
    sizes = [n * s for n, s in zip(outputs, stride, strict=True)]
    channels = kernel.shape[1] * groups
    columns = torch.eye(channels * math.prod(sizes), dtype=torch.float64).reshape(-1, channels, *sizes)
    for axis, (k, gap) in enumerate(zip(kernel.shape[2:], dilation, strict=True)):
        columns = columns.index_select(axis + 2, torch.arange(sizes[axis] + (k - 1) * gap) % sizes[axis])
    convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[len(sizes) - 1]
    return convolve(columns, kernel, stride=list(stride), dilation=list(dilation), groups=groups).flatten(1).T


CASES = [
    ((2, 3, 3, 3), (1, 1), (1, 1), 1, (5, 5)),
    ((4, 2, 3, 3), (2, 2), (1, 1), 1, (3, 3)),
    ((4, 2, 4, 2), (2, 1), (1, 1), 1, (4, 4)),
    ((2, 3, 3, 3), (1, 1), (2, 2), 1, (9, 9)),
    ((2, 3, 3), (2,), (2,), 1, (5,)),
    ((2, 3, 3), (4,), (2,), 1, (5,)),
    ((3, 2, 3), (2,), (3,), 1, (7,)),
    ((4, 2, 3, 3), (1, 1), (1, 1), 2, (5, 5)),
    ((6, 1, 3, 3), (2, 1), (1, 1), 3, (3, 5)),
    ((2, 1, 2, 3, 2), (1, 2, 1), (1, 1, 1), 1, (3, 3, 3)),
    ((3, 2, 1, 1), (2, 2), (1, 1), 1, (2, 2)),
    # more rows than columns
    ((5, 2, 3, 3), (1, 1), (1, 1), 1, (5, 5)),
    ((9, 1, 3), (2,), (1,), 1, (4,)),
    ((9, 1, 3), (2,), (2,), 1, (5,)),
    ((6, 1, 3, 3), (1, 1), (1, 1), 3, (5, 5)),
]


@pytest.mark.parametrize(("shape", "stride", "dilation", "groups", "outputs"), CASES)
def test_the_penalty_is_that_of_the_dense_matrix(
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    outputs: tuple[int, ...],
) -> None:
    kernel = random_kernel(*shape)
    matrix = circular_matrix(kernel, stride, dilation, groups, outputs)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    expected = (gram - torch.eye(len(gram), dtype=torch.float64)).square().sum() / math.prod(outputs)
    found = orthogonality(kernel, stride, dilation, groups)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_an_orthogonal_convolution_costs_nothing() -> None:
    shifts = torch.zeros(4, 4, 3, 3, dtype=torch.float64)
    for channel, (row, column) in enumerate([(0, 0), (1, 2), (2, 1), (1, 1)]):
        shifts[channel, channel, row, column] = 1.0  # every channel moved by one of the taps
    mixed = torch.einsum("mc,cdhw->mdhw", torch.linalg.qr(random_kernel(4, 4)).Q, shifts)
    assert orthogonality(mixed) < 1e-24
    assert deconv_orth_dist(mixed, stride=1, padding=2) < 1e-12
    assert conv_orth_dist(mixed) < 1e-12
    tall = torch.linalg.qr(random_kernel(6, 4)).Q.reshape(6, 4, 1)
    assert orthogonality(tall).abs() < 1e-12  # its columns are orthonormal, and the constant is taken off
    assert orth_dist(tall) < 1e-12


@pytest.mark.parametrize(
    "function",
    [
        lambda kernel: orthogonality(kernel, 2),
        lambda kernel: orthogonality(kernel, 1, 1, 2),
        lambda kernel: conv_orth_dist(kernel, 2),
        deconv_orth_dist,
        orth_dist,
    ],
)
def test_gradcheck(function: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(function, [random_kernel(4, 2, 3, 3).requires_grad_()])


@pytest.mark.parametrize("function", [orth_dist, conv_orth_dist, lambda kernel: deconv_orth_dist(kernel, 1, 0)])
def test_the_distance_has_a_finite_gradient_where_it_is_zero(function: Callable[[Tensor], Tensor]) -> None:
    kernel = torch.eye(3).reshape(3, 3, 1, 1).requires_grad_()
    distance = function(kernel)
    distance.backward()
    assert distance == 0.0
    assert torch.equal(kernel.grad, torch.zeros_like(kernel))


def test_conv_orth_dist_is_the_dense_distance_at_the_central_pixel() -> None:
    kernel = random_kernel(4, 2, 3, 3)
    size = 7  # 2 (k - 1) + k at stride 2
    identity = torch.eye(2 * size * size, dtype=torch.float64)
    matrix = torch.conv2d(identity.reshape(-1, 2, size, size), kernel, stride=2).flatten(1).T
    central = [size * size // 2, size * size + size * size // 2]
    expected = (matrix[:, central].T @ matrix - identity[central]).norm()
    torch.testing.assert_close(conv_orth_dist(kernel, 2), expected)


def trained(strength: float, model: nn.Module, steps: int = 300, **arguments: object) -> nn.Module:
    recipe = tikhon.Recipe(tikhon.OrthogonalConv(strength, **arguments), base=lambda o, t: o.flatten(1).mean(1) * 0.0)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recipe.attach(optimizer)
    inputs = torch.zeros(1, 2, 8, 8)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(inputs, torch.zeros(1)).backward()
        optimizer.step()
    return recipe.export()


def seeded(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", groups=2),
    ],
    ids=["strided", "more rows", "grouped"],
)
def test_training_drives_every_singular_value_to_one(layer: nn.Conv2d) -> None:
    def singular_values(kernel: Tensor) -> Tensor:
        outputs = (8 // layer.stride[0],) * 2
        matrix = circular_matrix(kernel.double(), layer.stride, layer.dilation, layer.groups, outputs)
        return torch.linalg.svdvals(matrix)

    seeded(layer)
    before = singular_values(layer.weight.detach())
    bias = layer.bias.detach().clone()
    trained(0.5, layer)
    after = singular_values(layer.weight.detach())
    assert before.max() - before.min() > 0.5
    assert after.min() > 0.95
    assert after.max() < 1.05
    assert torch.equal(layer.bias, bias)


def test_a_transposed_convolution_becomes_an_isometry() -> None:
    layer = seeded(nn.ConvTranspose2d(2, 4, 3, stride=2, bias=False))
    trained(0.5, layer, where=nn.ConvTranspose2d)
    inputs = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    lengths = layer(inputs).flatten(1).norm(dim=1)  # without padding a transposed convolution loses no border
    torch.testing.assert_close(lengths, inputs.flatten(1).norm(dim=1), rtol=1e-3, atol=1e-3)


def test_other_layers_are_left_alone() -> None:
    model = seeded(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2)))
    others = [parameter.detach().clone() for parameter in model[1:].parameters()]
    kernel = model[0].weight.detach().clone()
    trained(0.5, model, steps=2, where=("0", "1", "3"))
    assert all(torch.equal(one, other) for one, other in zip(model[1:].parameters(), others, strict=True))
    assert not torch.equal(model[0].weight, kernel)


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.raises(tikhon.TikhonError, match=r"Conv2d.*selects no trainable parameter of Linear"):
        tikhon.Recipe(tikhon.OrthogonalConv()).prepare(nn.Linear(2, 2))
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(2, 2))
    with pytest.raises(tikhon.TikhonError, match="selects none of their weights"):
        tikhon.Recipe(tikhon.OrthogonalConv(where=nn.Linear)).prepare(model)
