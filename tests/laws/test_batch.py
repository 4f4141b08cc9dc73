"""The batch: per-sample results follow a permutation, and the caller's tensors stay as they were."""

from __future__ import annotations

import pytest
import torch

from .rows import METHODS, make, problem_of
from .training import BATCH, STEPS, Training, batches, network, obeys

HALF = 3


def fresh(name):
    """A training with something in every memory."""
    torch.manual_seed(0)
    return Training.of(make(name), model=network(dtype=torch.float64, problem=problem_of(name))).until(HALF)


def sample_losses(name, permutation):
    """Loss of every sample, in the order of the batch: the loss is linear in the samples' weights."""
    training = fresh(name)
    (index, inputs, labels), *_ = batches(HALF, HALF + 1, torch.float64, training.problem)
    weight = torch.ones(BATCH, dtype=torch.float64, requires_grad=True)
    loss = training.recipe.loss(
        inputs[permutation], labels[permutation], index=index[permutation], weight=weight, total=float(BATCH)
    )
    (losses,) = torch.autograd.grad(loss, weight)
    return losses


@pytest.mark.parametrize("name", METHODS)
def test_permuting_the_batch_permutes_sample_losses(name):
    obeys(name, "permutation")
    permutation = torch.randperm(BATCH, generator=torch.Generator().manual_seed(1))
    plain = sample_losses(name, torch.arange(BATCH))
    assert plain.unique().numel() > BATCH // 2
    torch.testing.assert_close(sample_losses(name, permutation), plain[permutation], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_the_callers_tensors_stay_untouched(name):
    obeys(name, "untouched")
    training = fresh(name)
    for index, inputs, labels in batches(HALF, STEPS, torch.float64, training.problem):
        held = [inputs, labels, index, torch.rand(BATCH, generator=torch.Generator().manual_seed(2)).double()]
        before, versions = [one.clone() for one in held], [one._version for one in held]
        training.optimizer.zero_grad()
        loss = training.recipe.loss(inputs, labels, index=index, weight=held[3])
        loss.backward()
        training.optimizer.step()
        assert [one._version for one in held] == versions
        assert all(torch.equal(one, other) for one, other in zip(held, before, strict=True))
        assert inputs.grad is None
