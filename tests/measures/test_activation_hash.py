"""Activation hash: codes read off the weights, numpy's unique rows, neighbours and distances counted one by one."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from tikhon import TikhonError
from tikhon.measures.activation_hash import activation_hash, neural_codes, redundancy

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=GENERATOR)
LABELS = torch.randint(3, (60,), generator=GENERATOR)


def network(width: int = 6):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(5, width), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, 3)
    )


def test_codes_are_signs_of_pre_activations_in_eval_mode() -> None:
    model = network()
    first = model[0](X)
    second = model[3](first.relu())
    expected = torch.cat([first > 0, second > 0], dim=1)
    assert torch.equal(neural_codes(model, X), expected)
    assert torch.equal(neural_codes(model, X, at=["3"]), second > 0)
    assert torch.equal(neural_codes(model, X.repeat(20, 1))[-60:], expected)  # in several batches
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_units_of_convolutions_are_flattened() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU())
    assert torch.equal(neural_codes(model, X[:, None]), (model[0](X[:, None]) > 0).flatten(1))


def test_redundancy_is_that_of_numpy() -> None:
    codes = neural_codes(network(3), X)
    assert redundancy(codes) == pytest.approx(1.0 - len(np.unique(codes.numpy(), axis=0)) / 60)
    assert 0.1 < redundancy(codes) < 0.9
    assert redundancy(torch.eye(4).bool()) == 0.0


def test_distances_are_counted_pair_by_pair() -> None:
    model = network()
    found = activation_hash(model, X, LABELS, X[:20], LABELS[:20], neighbours=3)
    codes = neural_codes(model, X[:20])
    within, between = torch.zeros(11, dtype=torch.int64), torch.zeros(11, dtype=torch.int64)
    for i in range(20):
        for j in range(i + 1, 20):
            (within if LABELS[i] == LABELS[j] else between)[int((codes[i] != codes[j]).sum())] += 1
    assert torch.equal(found.within, within)
    assert torch.equal(found.between, between)


def test_classes_that_light_other_units_are_told_apart_and_shuffled_labels_are_not() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
    model[0].weight.data = torch.eye(4)
    kind = torch.arange(80) % 4
    inputs = torch.eye(4)[kind] - 0.5 + 0.4 * torch.rand(80, 4, generator=torch.Generator().manual_seed(0))
    found = activation_hash(model, inputs, kind, inputs, kind)
    assert (found.kmeans, found.test_kmeans, found.knn, found.logistic) == (1.0, 1.0, 1.0, 1.0)
    assert found.redundancy == pytest.approx(1.0 - 4 / 80)
    shuffled = kind[torch.randperm(80, generator=torch.Generator().manual_seed(0))]
    spoilt = activation_hash(model, inputs, shuffled, inputs, shuffled)
    assert max(spoilt.kmeans, spoilt.knn, spoilt.logistic) < 0.6


def test_neighbours_are_those_of_brute_force() -> None:
    model = network(12)
    found = activation_hash(model, X, LABELS, X[:30], LABELS[:30], neighbours=1)
    train, test = neural_codes(model, X), neural_codes(model, X[:30])
    distances = (train[None] != test[:, None]).sum(2)
    sure = 0  # where all codes at the least distance are of one class, there is one answer
    for row, label in zip(distances, LABELS[:30], strict=True):
        classes = LABELS[row == row.min()].unique()
        sure += int(len(classes) == 1 and classes[0] == label)
    assert sure / 30 <= found.knn <= 1.0
    assert found.knn > 0.8


def test_the_drawing_holds_all_pairs_of_either_kind() -> None:
    axes = activation_hash(network(), X, LABELS, X, LABELS).plot()
    heights = [bar.get_height() for bar in axes.patches]
    assert sum(heights) == pytest.approx(2.0, abs=1e-6)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one class", "two classes"]
    plt.close(axes.figure)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"no nn\.ReLU"):
        neural_codes(nn.Linear(5, 3), X)
    with pytest.raises(TikhonError, match="no module"):
        neural_codes(network(), X, at=["9"])
    with pytest.raises(TikhonError, match="a label for every sample"):
        activation_hash(network(), X, LABELS[:5], X, LABELS)
    with pytest.raises(TikhonError, match="neighbours"):
        activation_hash(network(), X, LABELS, X, LABELS, neighbours=61)
    with pytest.raises(TikhonError, match="two classes"):
        activation_hash(network(), X, torch.zeros_like(LABELS), X, LABELS)
