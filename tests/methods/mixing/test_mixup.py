"""MixUp: pairs against a loop, the loss against its definition, the share against scipy's beta distribution."""

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.mixing.mixup import mixup


def recipe_for(model, *methods, **kwargs):
    recipe = tikhon.Recipe(*methods, **kwargs)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe


def seen_by(model):
    """What the model was called with."""
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pairs_agree_with_a_loop(share):
    x, permutation = torch.randn(5, 2, 3, dtype=torch.float64), torch.tensor([4, 2, 1, 3, 0])
    expected = torch.stack([share * x[i] + (1 - share) * x[permutation[i]] for i in range(5)])
    torch.testing.assert_close(mixup(x, permutation, share), expected, rtol=1e-12, atol=1e-15)


def test_loss_is_the_mix_of_the_losses_of_the_mixed_inputs():
    """One-hot inputs show which rows were mixed and with which share."""
    rows = 6
    model = nn.Linear(rows, 3).double()
    seen = seen_by(model)
    recipe = recipe_for(model, tikhon.MixUp(alpha=1.0), seed=3)
    x, y = torch.eye(rows, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0])
    before = x.clone()
    loss = recipe.loss(x, y)
    mixed = seen[0]
    assert torch.equal(x, before)
    assert not torch.equal(mixed, x)
    # Row i is share * e_i + (1 - share) * e_j: soft labels are the same combination of one-hot labels.
    torch.testing.assert_close(mixed.sum(1), torch.ones(rows, dtype=torch.float64))
    assert (mixed > 0).sum(1).max() == 2
    expected = F.cross_entropy(model(mixed), mixed @ F.one_hot(y, 3).double())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)


def test_values_take_the_mix_of_the_losses_not_the_loss_of_the_mix():
    rows = 4
    model = nn.Linear(rows, 1).double()
    seen = seen_by(model)
    recipe = recipe_for(model, tikhon.MixUp(), base=F.mse_loss)
    y = torch.tensor([[1.0], [-2.0], [3.0], [0.5]], dtype=torch.float64)
    loss = recipe.loss(torch.eye(rows, dtype=torch.float64), y)
    output = model(seen[0])
    expected = (seen[0] * (output - y.T).square()).sum() / rows
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_share_is_beta_distributed(alpha):
    model = nn.Linear(1, 2)
    seen = seen_by(model)
    recipe = recipe_for(model, tikhon.MixUp(alpha))
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
    shares = []
    optimizer = recipe._run.optimizers[0]
    for _ in range(400):
        recipe.loss(x, y).backward()
        optimizer.step()
        shares.append(float(seen[-1][1, 0]))  # row 1 keeps the share l of its 1, or all where it met itself
    met = [share for share in shares if share != 1.0]
    assert 100 < len(met) < 300
    assert scipy.stats.kstest(met, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_inputs_that_cannot_be_averaged_are_refused():
    model = nn.EmbeddingBag(10, 2)
    recipe = recipe_for(model, tikhon.MixUp())
    with pytest.raises(tikhon.TikhonError, match="token ids"):
        recipe.loss(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))


def test_a_negative_alpha_is_refused():
    with pytest.raises(tikhon.TikhonError, match="alpha"):
        tikhon.MixUp(alpha=-1.0)
