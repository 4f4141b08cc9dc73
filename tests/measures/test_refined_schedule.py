"""Refined schedules: linear decay, brute force, scipy's median, the recorder, and wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from tikhon import TikhonError
from tikhon.measures.refined_schedule import (
    GradientNorms,
    closed_form,
    median_smoothed,
    numeric_schedule,
    refined_schedule,
)


def norms(steps: int = 101):
    generator = torch.Generator().manual_seed(0)
    return torch.linspace(3.0, 1.0, steps, dtype=torch.float64) + torch.rand(steps, generator=generator).double()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_equal_norms_are_linear_decay(kind) -> None:
    expected = torch.linspace(1.0, 0.0, 50, dtype=torch.float64)
    torch.testing.assert_close(refined_schedule(torch.full((50,), 7.0), kind), expected)


def test_the_closed_form_is_the_double_loop() -> None:
    w = norms(20) ** -2.0
    rates = torch.stack([w[t] * sum((w[p] for p in range(t + 1, 20)), torch.tensor(0.0)) for t in range(20)])
    torch.testing.assert_close(closed_form(w), rates / rates.max())


@pytest.mark.parametrize("width", [1, 3, 11])
def test_the_median_is_that_of_scipy(width) -> None:
    values = norms()
    expected = scipy.ndimage.median_filter(values.numpy(), width, mode="mirror")
    np.testing.assert_allclose(median_smoothed(values, width).numpy(), expected)


def test_large_norms_at_the_start_give_warm_up() -> None:
    rates = refined_schedule(torch.cat([torch.linspace(20.0, 1.0, 20), torch.ones(80)]))
    assert rates[0] < 0.01
    assert 10 <= int(rates.argmax()) <= 25
    assert rates[-1] == 0.0


def test_smoothing_takes_out_a_single_spike() -> None:
    spiked = torch.ones(60)
    spiked[30] = 1e3
    torch.testing.assert_close(refined_schedule(spiked), refined_schedule(torch.ones(60)))
    assert refined_schedule(spiked, smoothing=0.0)[30] < 1e-5


def test_the_numeric_schedule_is_no_worse_than_any_scale_of_linear_decay() -> None:
    g, d = norms(30), 2.0

    def bound(rates):
        squares = g**2 * rates**2
        total = d**2 / (2 * rates.sum()) + squares.sum() / (2 * rates.sum())
        for k in range(29):
            tail = rates[k:].sum()
            total = total + 0.5 * rates[k] / (tail * (tail - rates[k])) * squares[k:].sum()
        return total.item()

    found = bound(numeric_schedule(g, d))
    linear = torch.linspace(1.0, 1 / 30, 30, dtype=torch.float64)
    assert found <= min(bound(scale * linear) for scale in np.geomspace(1e-3, 10, 60)) + 1e-9


@pytest.mark.parametrize("order", [1, 2])
def test_the_recorder_sees_every_step_and_changes_nothing(order) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradientNorms(optimizer, order)
    assert recorder.values().shape == (0,)
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        expected.append(torch.cat([one.grad.flatten() for one in model.parameters()]).norm(order))
        optimizer.step()
    torch.testing.assert_close(recorder.values(), torch.stack(expected))
    recorder.remove()
    optimizer.step()
    assert len(recorder.values()) == 3


def test_norms_that_are_none_are_refused() -> None:
    with pytest.raises(TikhonError, match="T at least 2"):
        refined_schedule(torch.ones(1))
    with pytest.raises(TikhonError, match="positive and finite"):
        refined_schedule(torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(TikhonError, match="'sgd' or 'adam'"):
        refined_schedule(torch.ones(5), "lion")  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="smoothing"):
        refined_schedule(torch.ones(5), smoothing=1.0)
