"""Multi-sample dropout against nn.Dropout, loops over masks, and the exact expectation over all masks."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.stochastic.multi_sample_dropout import dropped

INPUTS = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3
INDEX = torch.arange(12)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 3)).double()


def attached(model, *methods, **options):
    recipe = tikhon.Recipe(*methods, **options)
    recipe.prepare(model, samples=12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    recipe.attach(optimizer, steps=6)
    return recipe, optimizer


def trained(*methods, steps=4):
    model = network()
    recipe, optimizer = attached(model, *methods)
    torch.manual_seed(3)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS, index=INDEX).backward()
        optimizer.step()
    return model.state_dict()


def test_one_sample_is_dropout_to_the_bit():
    model = nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Dropout(0.3), nn.Linear(10, 3)).double()
    model[0], model[3] = network()[0], network()[2]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    torch.manual_seed(3)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(INPUTS), LABELS).backward()
        optimizer.step()
    found = trained(tikhon.MultiSampleDropout(samples=1, p=0.3))
    assert all(map(torch.equal, found.values(), model.state_dict().values()))


@pytest.mark.parametrize("weight", [None, torch.linspace(0.0, 2.0, 12, dtype=torch.float64)])
@pytest.mark.parametrize("samples", [2, 5])
def test_the_loss_is_the_mean_over_passes_with_different_masks(samples, weight):
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout(samples=samples, p=0.4))
    torch.manual_seed(7)
    loss = recipe.loss(INPUTS, LABELS, weight=weight)
    loss.backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    torch.manual_seed(7)
    masks = F.dropout(torch.ones(samples * 12, 10, dtype=torch.float64), 0.4).split(12)
    assert not torch.equal(masks[0], masks[1])
    plain = network()
    features = plain[:2](INPUTS)
    counts = torch.ones(12, dtype=torch.float64) if weight is None else weight
    losses = [F.cross_entropy(plain[2](features * mask), LABELS, reduction="none") @ counts for mask in masks]
    expected = sum(losses) / samples / counts.sum()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for gradient, parameter in zip(found, plain.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-12)


def gradient_variance(samples):
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout(samples=samples, p=0.5))
    torch.manual_seed(5)
    gradients = []
    for _ in range(400):
        found = torch.autograd.grad(recipe.loss(INPUTS, LABELS), list(model.parameters()))
        gradients.append(torch.cat([one.flatten() for one in found]))
    return float(torch.stack(gradients).var(0).sum())


def test_the_variance_of_the_gradient_falls_as_one_over_the_samples():
    single = gradient_variance(1)
    assert 3.4 < single / gradient_variance(4) < 4.6
    assert 6.8 < single / gradient_variance(8) < 9.2


def test_many_samples_approach_the_expectation_over_all_masks():
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 3)).double()
    recipe, _ = attached(model, tikhon.MultiSampleDropout(samples=40_000, p=0.25))
    expected = torch.zeros((), dtype=torch.float64)
    for kept in itertools.product([0.0, 1.0], repeat=4):
        chance = 0.75 ** sum(kept) * 0.25 ** (4 - sum(kept))
        expected += chance * F.cross_entropy(model[1](INPUTS * torch.tensor(kept) / 0.75), LABELS)
    torch.manual_seed(0)
    loss = recipe.loss(INPUTS, LABELS)
    assert abs(F.cross_entropy(model[1](INPUTS), LABELS) - expected) > 0.02
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=0.003, check_dtype=False)


def test_the_output_while_training_is_the_mean_over_the_masks():
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout(samples=3, p=0.5))
    recipe.loss(INPUTS, LABELS)
    torch.manual_seed(4)
    found = model(INPUTS)
    torch.manual_seed(4)
    masks = F.dropout(torch.ones(36, 10, dtype=torch.float64), 0.5).split(12)
    features = model[:2](INPUTS)
    expected = sum(F.linear(features * mask, model[2].weight, model[2].bias) for mask in masks) / 3
    torch.testing.assert_close(found, expected)


def test_evaluation_and_export_are_one_pass_without_dropout():
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout())
    recipe.loss(INPUTS, LABELS)
    model.eval()
    assert torch.equal(model(INPUTS), network()(INPUTS))
    assert torch.equal(recipe.loss(INPUTS, LABELS), F.cross_entropy(model(INPUTS), LABELS))
    assert torch.equal(recipe.export().train()(INPUTS), network()(INPUTS))


def test_a_head_in_eval_mode_is_left_alone():
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout())
    model[2].eval()
    assert torch.equal(recipe.loss(INPUTS, LABELS), F.cross_entropy(network()(INPUTS), LABELS))


def test_a_second_pass_repeats_the_masks():
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout(samples=3), tikhon.SAM(radius=1e-3))
    seen = []
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach() == 0))
    recipe.loss(INPUTS, LABELS).backward()
    assert len(seen) == 2
    assert 0.3 < seen[0].double().mean() < 0.7
    assert torch.equal(seen[0], seen[1])


def test_extra_passes_of_other_methods_are_not_taken_for_the_pass_of_the_loss():
    """Under mixing ELR asks for predictions on the clean inputs between the forward pass and the loss."""
    methods = [tikhon.MultiSampleDropout(samples=3), tikhon.MixUp()]
    alone, beside = trained(*methods), trained(*methods, tikhon.ELR(strength=0.0))
    assert all(map(torch.equal, alone.values(), beside.values()))


def test_with_nested_dropout_on_the_same_head():
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout(samples=3, p=0.2), tikhon.NestedDropout(scale=3.0))
    seen = []
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    recipe.loss(INPUTS, LABELS).backward()
    kept = int(recipe.methods["nested_dropout"].drawn)
    assert seen[0].shape == (36, 10)
    assert not seen[0][:, kept:].any()
    assert seen[0][:, :kept].any()


def test_regression_and_a_schedule():
    model = nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 1)).double()
    method = tikhon.MultiSampleDropout(samples=4, p=tikhon.linear(0.0, 0.6))
    recipe, optimizer = attached(model, method, base=F.mse_loss)
    rates = []
    for _ in range(6):
        recipe.loss(INPUTS, INPUTS[:, :1]).backward()
        optimizer.step()
        rates.append(method.rate)
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_nothing_outlives_the_loss():
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout(samples=3))
    kept = []
    model[2].register_forward_hook(lambda module, args, mean: kept.append(weakref.ref(mean.each_mask)))
    loss = recipe.loss(INPUTS, LABELS)
    loss.backward()
    del loss
    gc.collect()
    assert kept[0]() is None


class Scaled(nn.Module):
    """A model that does something after its last linear layer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, inputs):
        return 2.0 * self.head(inputs)


def test_errors():
    recipe, _ = attached(Scaled(), tikhon.MultiSampleDropout())
    with pytest.raises(tikhon.TikhonError, match="is not what its module 'head' returns"):
        recipe.loss(INPUTS, LABELS)
    squeezed = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double()
    recipe, _ = attached(squeezed, tikhon.MultiSampleDropout(), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="leave nothing to be done after it"):
        recipe.loss(INPUTS, INPUTS[:, 0])
    with pytest.raises(tikhon.TikhonError, match="no module 'haed'"):
        attached(Scaled(), tikhon.MultiSampleDropout(at="haed"))
    with pytest.raises(tikhon.TikhonError, match=r"found no nn\.Linear"):
        attached(nn.Sequential(nn.Conv1d(1, 1, 1)), tikhon.MultiSampleDropout())
    for samples in (0, -1, 2.0, True):
        with pytest.raises(tikhon.TikhonError, match="samples must be a positive integer"):
            tikhon.MultiSampleDropout(samples=samples)
    with pytest.raises(tikhon.TikhonError, match="p must be"):
        tikhon.MultiSampleDropout(p=1.5)


def test_a_nan_is_reported_as_such():
    model = network()
    recipe, _ = attached(model, tikhon.MultiSampleDropout())
    with pytest.raises(tikhon.TikhonError, match="The loss is nan"):
        recipe.loss(INPUTS * float("nan"), LABELS)


def test_dropped_keeps_the_order_of_the_batch():
    features = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(dropped(features, 2, 0.0), torch.cat([features, features]))
    assert not dropped(features, 2, 1.0).any()
