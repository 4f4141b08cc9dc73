"""Robustness to corruptions: counts by hand, a model on digits, and the baseline's errors."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import tikhon
from tikhon import TikhonError
from tikhon.data import blur, build_model, gaussian_noise, load_task, rotate
from tikhon.measures.corruption import CorruptionRobustness, corruption_robustness

X = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
Y = torch.tensor([0, 0, 0, 1])


def shift(by: float, inputs: torch.Tensor) -> torch.Tensor:
    return inputs - torch.tensor([by, 0.0])


def found(batch_size: int = 256, model=lambda x: x) -> CorruptionRobustness:
    corruptions = {"shift": [partial(shift, 1.5), partial(shift, 2.5)], "flip": [X.flip(1)]}
    return corruption_robustness(model, X, Y, corruptions, batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_by_hand(batch_size) -> None:
    robustness = found(batch_size)
    assert robustness.clean == 1.0
    assert robustness.accuracy["shift"].tolist() == [0.75, 0.5]
    assert robustness.accuracy["flip"].tolist() == [0.0]
    assert robustness.mean_accuracy == pytest.approx((0.625 + 0.0) / 2)
    assert robustness.retained == robustness.mean_accuracy


def test_errors_relative_to_a_baseline() -> None:
    robustness = found()
    other = CorruptionRobustness(0.8, {"shift": torch.tensor([0.5, 0.5]), "flip": torch.tensor([0.2])})
    assert robustness.corruption_error(other) == pytest.approx(((0.25 + 0.5) / 1.0 + 1.0 / 0.8) / 2)
    assert robustness.relative_corruption_error(other) == pytest.approx((0.75 / 0.6 + 1.0 / 0.6) / 2)
    assert robustness.corruption_error(robustness) == pytest.approx(1.0)
    assert robustness.relative_corruption_error(robustness) == pytest.approx(1.0)


def test_a_module_is_taken_in_eval_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9), nn.BatchNorm1d(2, affine=False))
    model[0].eval()
    modes = [one.training for one in model.modules()]
    assert found(model=model).clean == 1.0
    assert [one.training for one in model.modules()] == modes
    assert model[2].num_batches_tracked == 0


def test_nothing_right_retains_nothing_that_can_be_said() -> None:
    robustness = corruption_robustness(lambda x: -x, X, Y, {"none": [X]})
    assert robustness.clean == 0.0
    assert math.isnan(robustness.retained)


def test_digits_lose_more_the_stronger_the_corruption() -> None:
    task = load_task("digits", seed=0)
    model, _ = tikhon.fit(
        build_model("mlp", task, seed=0), tikhon.Recipe(), (task.train.inputs, task.train.target), epochs=6
    )
    x, y = task.test.inputs, task.test.target
    generator = torch.Generator().manual_seed(0)
    robustness = corruption_robustness(
        model,
        x,
        y,
        {
            "noise": [gaussian_noise(x, scale, generator) for scale in (0.1, 0.3, 0.6)],
            "rotation": [partial(rotate, degrees=degrees) for degrees in (10, 30, 90)],
            "blur": [blur(x, sigma) for sigma in (0.5, 1.0, 2.0)],
        },
    )
    for name, one in robustness.accuracy.items():
        assert robustness.clean + 0.02 >= one[0] > one[-1] + 0.1, name
    with torch.no_grad():
        turned = float((model.eval()(rotate(x, 30)).argmax(1) == y).double().mean())
    assert float(robustness.accuracy["rotation"][1]) == pytest.approx(turned)


def test_the_plot_has_a_line_for_every_corruption_from_the_clean_accuracy_on() -> None:
    robustness = found()
    axes = Figure().add_subplot()
    assert robustness.plot(axes) is axes
    shifted, flipped, clean = axes.lines
    np.testing.assert_allclose(shifted.get_xydata(), [[0, 1.0], [1, 0.75], [2, 0.5]])
    np.testing.assert_allclose(flipped.get_xydata(), [[0, 1.0], [1, 0.0]])
    assert set(clean.get_ydata()) == {robustness.clean}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["shift", "flip"]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match="4 inputs do not fit 3 labels"):
        corruption_robustness(nn.Identity(), X, Y[:3], {"none": [X]})
    for nothing in ({}, {"none": []}):
        with pytest.raises(TikhonError, match="nothing to be robust to"):
            corruption_robustness(nn.Identity(), X, Y, nothing)
    with pytest.raises(TikhonError, match=r"gives inputs \(3, 2\) of what were \(4, 2\)"):
        corruption_robustness(nn.Identity(), X, Y, {"short": [X[:3]]})
    other = CorruptionRobustness(1.0, {"shift": torch.ones(1), "flip": torch.ones(1)})
    for measure in (found().corruption_error, found().relative_corruption_error):
        with pytest.raises(TikhonError, match="other corruptions"):
            measure(other)
