"""The mean over the micro-batches of a step: unequal sizes, refused batches, saving half-way."""

from __future__ import annotations

import copy

import torch

from tikhon import StepMean


def test_it_is_the_mean_over_samples_and_ends_with_the_step() -> None:
    mean = StepMean()
    values = torch.arange(5.0)
    mean.add(2, [values[:2].mean(), values[:2].mean()[None]])
    mean.add(3, [values[2:].mean(), values[2:].mean()[None]])
    assert [one.tolist() for one in mean.value()] == [2.0, [2.0]]
    mean.commit()
    assert mean.staged == 0


def test_a_refused_micro_batch_is_forgotten_and_a_saved_one_is_not() -> None:
    mean = StepMean()
    mean.add(1, [torch.tensor(1.0)])
    mean.add(1, [torch.tensor(float("nan"))])
    mean.rewind(1)
    other = StepMean()
    other.load_state_dict(copy.deepcopy(mean.state_dict()))
    for one in (mean, other):
        one.add(3, [torch.tensor(5.0)])
        assert one.value()[0] == 4.0
