"""Dead units: units built to be dead, constant and redundant, numpy's correlations, and what pruning makes of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from tikhon import TikhonError
from tikhon.measures.dead_units import unit_use

X = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))


def built():
    """Eight units: free, dead, constant, a scaled copy of the first, its negative before ReLU, free, dead, free."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        weight, bias = model[0].weight, model[0].bias
        bias.zero_()
        for dead in (1, 6):
            weight[dead] = 0.01
            bias[dead] = -50.0
        weight[2], bias[2] = 0.0, 0.7
        weight[3] = 2.5 * weight[0]
        weight[4] = -weight[0]
    return model


def test_units_are_what_they_were_built_to_be() -> None:
    found = unit_use(built(), X)
    assert found.dead["1"].nonzero()[:, 0].tolist() == [1, 6]
    assert found.constant["1"].nonzero()[:, 0].tolist() == [2]
    assert found.redundant["1"].nonzero()[:, 0].tolist() == [3]
    assert found.shares() == {"1": (0.25, 0.125, 0.125)}
    pre = unit_use(built(), X, at=["0"])  # before the ReLU the negative is redundant too, and nothing is dead
    assert pre.redundant["0"][:7].tolist() == [False, False, False, True, True, False, True]
    assert not pre.dead["0"].any()


def test_redundancy_is_that_of_numpys_correlations() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 30), nn.Tanh())
    found = unit_use(model, X, correlation=0.9).redundant["1"]
    correlations = np.abs(np.corrcoef(model(X).detach().double().numpy().T))
    expected: list[int] = []
    for unit in range(30):
        if any(correlations[unit, other] >= 0.9 for other in range(unit) if other not in expected):
            expected.append(unit)
    assert found.nonzero()[:, 0].tolist() == expected
    assert 0 < len(expected) < 29


def test_dead_units_can_go_and_the_answer_stays() -> None:
    model = built()
    before = model(X)
    with torch.no_grad():
        model[2].weight[:, unit_use(model, X).dead["1"]] = 0.0
    torch.testing.assert_close(model(X), before)


def test_channels_count_over_positions_and_modes_return() -> None:
    model = nn.Sequential(nn.Conv1d(1, 4, 2), nn.BatchNorm1d(4), nn.ReLU())
    model[1].bias.data[2] = -100.0
    found = unit_use(model, X[:, None])
    assert found.dead["2"].tolist() == [False, False, True, False]
    assert all(module.training for module in model)
    assert torch.equal(model[1].running_mean, torch.zeros(4))


def test_a_unit_that_wakes_in_the_last_batch_is_not_dead() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.fill_(0.0)
    inputs = torch.cat([-torch.ones(1100, 1), torch.ones(1, 1)])
    assert unit_use(model, inputs[:-1]).dead["1"].item()
    assert not unit_use(model, inputs).dead["1"].item()


def test_the_drawing_stacks_to_one() -> None:
    found = unit_use(built(), X)
    axes = found.plot()
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([*found.shares()["1"], 0.5])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dead", "constant", "redundant", "in use"]
    plt.close(axes.figure)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match="correlation"):
        unit_use(built(), X, correlation=0.0)
    with pytest.raises(TikhonError, match="no samples"):
        unit_use(built(), X[:0])
