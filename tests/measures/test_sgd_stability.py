"""Stability of SGD: the exact growth of deviations over all batches, closed forms, and paths counted one by one."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.measures.sgd_stability import Stability, path_norm, sgd_stability
from tikhon.studies.measures.sgd_stability import Diagonal


def normal(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def growth(samples, rate, batch):
    """The factor by which E (deviation)(deviation)^T grows in a step of SGD, over all batches with replacement."""
    dimensions = samples.shape[1]
    total = torch.zeros(dimensions**2, dimensions**2, dtype=torch.float64)
    batches = list(itertools.product(range(len(samples)), repeat=batch))
    for rows in batches:
        chosen = samples[list(rows)]
        step = torch.eye(dimensions, dtype=torch.float64) - rate * 2.0 * chosen.T @ chosen / batch
        total += torch.kron(step, step)
    return float(torch.linalg.eigvals(total / len(batches)).abs().max())


def edge(samples, batch):
    """The largest rate at which no deviation grows."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if growth(samples, middle, batch) <= 1.0 + 1e-9 else (low, middle)
    return low


def exact(samples, rate, batch):
    hessian = 2.0 * samples.T @ samples / len(samples)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    return Stability(largest, float(hessian.trace()), 0.0, float(hessian.norm()), rate, batch)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_where_sgd_is_stable_the_conditions_hold(batch, seed) -> None:
    samples = normal(4, 3, seed=seed)
    found = exact(samples, edge(samples, batch), batch)
    assert found.sgd <= 1.0 + 1e-6
    assert found.gd <= 1.0 + 1e-6
    assert found.sgd > 0.1


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_condition_is_sharp_for_samples_that_are_alike_in_all_directions(batch) -> None:
    samples = 1.7 * torch.eye(3, dtype=torch.float64)
    assert exact(samples, edge(samples, batch), batch).sgd == pytest.approx(1.0, abs=1e-5)


def test_numbers_of_linear_regression() -> None:
    x = normal(30, 4)
    found = sgd_stability(nn.Linear(4, 1, bias=False).double(), F.mse_loss, [(x, x[:, :1])], 0.3, 5, probes=3000)
    wanted = exact(x, 0.3, 5)
    assert found.gd == pytest.approx(wanted.gd, rel=1e-3)
    assert found.sgd == pytest.approx(wanted.sgd, rel=0.05)
    assert found.loss == pytest.approx(wanted.loss, rel=0.05)
    assert wanted.loss == pytest.approx(0.3 * float((2.0 * x.T @ x / 30).norm()) / 5**0.5)


def test_the_trace_of_a_diagonal_network_at_interpolation() -> None:
    x, model = normal(20, 100), Diagonal()
    with torch.no_grad():
        model.u.add_(0.1 * normal(100, seed=1))
        target = model(x)
    found = sgd_stability(model, F.mse_loss, [(x[:7], target[:7]), (x[7:], target[7:])], 0.01, probes=500)
    squares = (model.u.square() + model.v.square()).detach()
    trace = float((8.0 * x.square() @ squares).mean())  # 2 E |df/du|^2 + |df/dv|^2
    assert abs(found.trace - trace) < 3.0 * found.trace_error
    assert found.sgd == pytest.approx(0.005 * found.trace)


def test_a_path_norm_is_the_sum_over_paths() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    weights = [layer.weight.abs().tolist() for layer in model[::2]]
    biases = [layer.bias.abs().tolist() for layer in model[::2]]
    total = 0.0
    for k in range(2):
        total += biases[2][k]
        for j in range(2):
            total += biases[1][j] * weights[2][k][j]
            for i in range(4):
                inward = biases[0][i] + sum(weights[0][i][d] for d in range(3))
                total += inward * weights[1][j][i] * weights[2][k][j]
    assert float(path_norm(model, normal(5, 3))) == pytest.approx(total)
    convolution = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1, bias=False))
    kernel, last = convolution[0].weight.tolist(), convolution[3].weight.tolist()
    paths = [
        abs(kernel[c][0][a][b] * last[0][4 * c + place])
        for c, a, b, place in itertools.product(range(2), range(2), range(2), range(4))
    ]
    assert float(path_norm(convolution, torch.zeros(1, 1, 3, 3))) == pytest.approx(sum(paths), rel=1e-5)


def test_the_drawing_has_a_bar_for_each_condition() -> None:
    stability = Stability(2.0, 6.0, 0.1, 3.0, 0.5, 1)
    axes = stability.plot()
    assert [bar.get_width() for bar in axes.patches] == [stability.gd, stability.sgd, stability.loss] == [0.5, 1.5, 1.5]
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "limit at 1"
    assert texts[1] == "limit at 0.333"
    plt.close(axes.figure)


def test_wrong_input_is_refused() -> None:
    x, model = normal(4, 3), nn.Linear(3, 3).double()
    with pytest.raises(TikhonError, match="learning_rate"):
        sgd_stability(model, F.mse_loss, [(x, x)], 0.0)
    with pytest.raises(TikhonError, match="batch_size"):
        sgd_stability(model, F.mse_loss, [(x, x)], 0.1, batch_size=0)
    with pytest.raises(TikhonError, match="BatchNorm1d"):
        path_norm(nn.Sequential(model, nn.BatchNorm1d(3)), x)
