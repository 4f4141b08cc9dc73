"""Effective rank against numpy's singular values of features held whole, and spectra whose rank is known."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from tikhon import TikhonError
from tikhon.measures.effective_rank import effective_rank, layer_ranks, stable_rank

X = torch.randn(700, 2, 9, generator=torch.Generator().manual_seed(0))


def by_numpy(matrix):
    singular = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return math.exp(-(shares * np.log(shares)).sum()), (singular**2).sum() / singular[0] ** 2


def test_known_spectra() -> None:
    assert effective_rank(torch.ones(7)) == pytest.approx(7.0)
    assert stable_rank(torch.ones(7)) == 7.0
    spectrum = torch.tensor([0.5, 0.25, 0.25, 0.0])
    assert effective_rank(4.0 * spectrum) == pytest.approx(2.0**1.5)  # entropy of 1/2, 1/4, 1/4: 1.5 bits
    assert stable_rank(spectrum) == pytest.approx(1.5)
    assert effective_rank(torch.zeros(2, 3)).tolist() == stable_rank(torch.zeros(2, 3)).tolist() == [0.0, 0.0]
    assert effective_rank(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.float32


def test_gradients_are_those_of_finite_differences() -> None:
    singular = torch.tensor([3.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(effective_rank, singular)
    assert torch.autograd.gradcheck(stable_rank, singular)


def test_ranks_of_a_network_are_those_of_its_matrices() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(35, 12), nn.Tanh()
    )
    found = layer_ranks(model, X)
    assert all(module.training for module in model)
    model.eval()
    with torch.no_grad():
        convolved = model[:3](X)
        features = {"2": convolved.movedim(1, -1).reshape(-1, 5), "5": model(X)}
    assert list(found.features) == ["2", "5"]
    for name, matrix in features.items():
        assert found.features[name] == pytest.approx((*by_numpy(matrix), matrix.shape[1]), rel=1e-4)
    assert list(found.weights) == ["0.weight", "4.weight"]
    for layer, name in ((model[0], "0.weight"), (model[4], "4.weight")):
        matrix = layer.weight.detach().flatten(1)
        assert found.weights[name] == pytest.approx((*by_numpy(matrix), min(matrix.shape)), rel=1e-4)


def test_features_of_low_rank_are_seen_as_such() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 3, bias=False), nn.Linear(3, 40, bias=False))
    found = layer_ranks(model, X[:, 0], at=["1"])
    assert found.features["1"][0] <= 3.0 + 1e-6
    assert found.features["1"][2] == 40
    assert list(layer_ranks(model, X[:, 0]).features) == ["0", "1"]  # no activation: the layers


def test_an_activation_that_is_shared_counts_by_call_and_sequences_by_the_last_axis() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.act = nn.Linear(9, 4), nn.Linear(4, 6), nn.ReLU()

        def forward(self, x):
            return self.act(self.second(self.act(self.first(x))))

    found = layer_ranks(Twice(), X)
    assert {name: full for name, (_, _, full) in found.features.items()} == {"act": 4, "act:2": 6}


def test_the_drawing_has_a_bar_for_each_layer() -> None:
    model = nn.Sequential(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2))
    found = layer_ranks(model, X[:, 0])
    axes = found.plot()
    heights = [bar.get_height() for bar in axes.patches]
    ranks = [*found.weights.values(), *found.features.values()]
    assert heights == pytest.approx([effective / full for effective, _, full in ranks])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.weight", "2.weight", "1"]
    plt.close(axes.figure)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match="no samples"):
        layer_ranks(nn.Linear(9, 2), X[:0, 0])
    with pytest.raises(TikhonError, match="no activations or layers"):
        layer_ranks(nn.Flatten(), X)
    with pytest.raises(TikhonError, match="no module '7'"):
        layer_ranks(nn.Sequential(nn.Linear(9, 2)), X[:, 0], at=["7"])
