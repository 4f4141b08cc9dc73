"""Scores of difficulty: against NumPy, loops over samples, and gradients of the last layer alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.math.difficulty import el1n, el2n, grand, last_layer_gradient_norms, max_margin, sum_margin

SAMPLES = 12
INPUTS = torch.randn(SAMPLES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(SAMPLES) % 3


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_scores_of_predictions_by_numpy():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), size=20)
    labels = generator.integers(5, size=20)
    others = np.array([np.delete(row, label) for row, label in zip(probabilities, labels, strict=True)])
    own = probabilities[np.arange(20), labels]
    errors = probabilities - np.eye(5)[labels]
    p, y = torch.from_numpy(probabilities), torch.from_numpy(labels)
    for found, expected in (
        (el2n(p, y), np.sqrt((errors**2).sum(1))),
        (el1n(p, y), np.abs(errors).sum(1)),
        (max_margin(p, y), others.max(1) - own),
        (sum_margin(p, y), (others - own[:, None]).sum(1)),
        (el2n(p, F.one_hot(y, 5).double()), np.sqrt((errors**2).sum(1))),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_gradient_norms_by_a_loop(chunk):
    model = network().eval()
    model[0].bias.requires_grad_(False)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = []
    for one, label in zip(INPUTS, LABELS, strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(model(one[None]), label[None]), trainable)
        expected.append(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    torch.testing.assert_close(grand(model, INPUTS, LABELS, chunk=chunk), torch.stack(expected), rtol=1e-10, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(tikhon.TikhonError, match=r"model\.eval\(\)"):
        grand(model.train(), INPUTS, LABELS)


def test_gradient_norms_of_another_loss():
    model = nn.Linear(2, 1, bias=False).double().eval()
    inputs, values = INPUTS[:, :2], INPUTS[:, 2:3]
    expected = (2 * (model(inputs) - values) * inputs).norm(dim=1)
    torch.testing.assert_close(grand(model, inputs, values, F.mse_loss), expected.detach())


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_in_closed_form_is_that_of_its_parameters_alone(bias):
    model = network().eval()
    model[0].requires_grad_(False)
    if not bias:
        model[2] = nn.Linear(6, 3, bias=False).double()
    features = model[:2](INPUTS).detach()
    found = last_layer_gradient_norms(model(INPUTS).softmax(1).detach(), LABELS, features, bias)
    torch.testing.assert_close(found, grand(model, INPUTS, LABELS), rtol=1e-10, atol=0)
