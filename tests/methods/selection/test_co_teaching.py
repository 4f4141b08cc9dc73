"""Co-teaching against two networks trained by hand, each on what the other chose."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.selection.co_teaching import small_loss

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(10, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.randint(3, (10,), generator=GENERATOR)


def network(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 3)).double()


def attached(model, *methods, base=F.cross_entropy):
    recipe = tikhon.Recipe(*methods, base=base, seed=5)
    recipe.prepare(model, samples=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe.attach(optimizer, steps=10)
    return recipe, optimizer


def weights(model):
    return [p for name, p in model.named_parameters() if not name.startswith("co_teaching")]


def test_of_the_losses_the_smallest_are_kept():
    losses = torch.tensor([3.0, 0.5, 2.0, 1.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0], requires_grad=True)
    for rate, kept in ((0.0, 10), (0.3, 7), (0.31, 6), (0.9, 1), (0.99, 1)):
        chosen = small_loss(losses, rate)
        assert not chosen.requires_grad
        assert int(chosen.sum()) == kept
        assert float(losses.detach()[chosen > 0].max()) == float(losses.detach().sort().values[kept - 1])


@pytest.mark.parametrize("weighted", [False, True])
def test_two_networks_teach_each_other(weighted):
    """Five epochs of one step: the rate rises to 0.4 over four of them, and both networks follow the other's choice."""
    own = torch.linspace(0.5, 2.0, 10).double() if weighted else None
    main, peer = network(1), network(2)
    twins = [copy.deepcopy(main), copy.deepcopy(peer)]
    recipe, optimizer = attached(main, tikhon.CoTeaching(0.4, gradual=4, peer=peer))
    by_hand = [torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9) for twin in twins]
    for epoch in range(6):
        optimizer.zero_grad()
        loss = recipe.loss(X, Y, weight=own)
        loss.backward()
        optimizer.step()
        recipe.end_epoch()
        kept = 10 - min(epoch, 4)
        losses = [F.cross_entropy(twin(X), Y, reduction="none") for twin in twins]
        choices = [one.detach().argsort()[:kept] for one in losses]
        count = torch.ones(10).double() if own is None else own
        means = [
            (count * one)[chosen].sum() / count[chosen].sum()
            for one, chosen in zip(losses, reversed(choices), strict=True)
        ]
        torch.testing.assert_close(loss, sum(means), rtol=1e-10, atol=0.0)
        for mean, stepping in zip(means, by_hand, strict=True):
            stepping.zero_grad()
            mean.backward()
            stepping.step()
    for model, twin in zip((weights(main), list(peer.parameters())), twins, strict=True):
        for one, other in zip(model, twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_peer_is_another_network_and_gone_after_export():
    model = network()
    names = set(model.state_dict())
    torch.manual_seed(9)
    before = torch.get_rng_state()
    recipe, optimizer = attached(model, tikhon.CoTeaching())
    assert torch.equal(torch.get_rng_state(), before)
    added = [name for name, _ in model.named_parameters() if name.startswith("co_teaching_")]
    assert len(added) == len(weights(model)) == 6
    first, drawn = model[0].weight, model.get_parameter("co_teaching_0")
    assert first.shape == drawn.shape
    assert (first - drawn).abs().min() > 0.0
    recipe.loss(X, Y).backward()
    optimizer.step()
    assert set(recipe.export().state_dict()) == names


def test_a_total_and_a_mean_are_the_same():
    losses = []
    for total in (None, 10.0):
        recipe, _ = attached(network(), tikhon.CoTeaching(0.5, gradual=1))
        recipe.end_epoch()
        losses.append(recipe.loss(X, Y, total=total).detach())
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0.0)


def test_ignored_samples_are_not_taken_for_easy_ones():
    """Half of the labels are to be ignored: the loss is that of the other half alone, of which all but one are kept."""
    y = torch.where(torch.arange(10) < 5, -100, Y)
    found = []
    for x, labels, rate in ((X, y, 0.6), (X[5:], Y[5:], 0.2)):
        model = nn.Linear(4, 3).double()
        peer = nn.Linear(4, 3).double()
        for number, one in enumerate((model, peer)):
            nn.init.normal_(one.weight, generator=torch.Generator().manual_seed(number))
            nn.init.zeros_(one.bias)
        recipe, _ = attached(model, tikhon.CoTeaching(rate, gradual=1, peer=peer))
        recipe.end_epoch()
        found.append(recipe.loss(x, labels).detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0.0)


def test_mixing_smoothing_and_a_second_pass():
    """The peer sees the mixed and smoothed batch; repeating the pass at the same weights repeats the loss."""
    found = []
    for methods in ((), (tikhon.SAM(radius=1e-12),)):
        model = network(dropout=0.5)
        recipe, _ = attached(
            model, tikhon.CoTeaching(0.4, gradual=1), tikhon.MixUp(), tikhon.LabelSmoothing(0.1), *methods
        )
        recipe.end_epoch()
        torch.manual_seed(3)
        loss = recipe.loss(X, Y)
        loss.backward()
        found.append((loss.detach(), model[1].running_mean.clone(), model.get_parameter("co_teaching_0").grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_without_forgetting_the_peer_rests():
    model = network()
    recipe, _ = attached(model, tikhon.CoTeaching(0.0))
    loss = recipe.loss(X, Y)
    torch.testing.assert_close(loss, F.cross_entropy(model(X), Y))
    loss.backward()
    assert model.get_parameter("co_teaching_0").grad is None


def test_wrong_input_is_refused():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.scale * x

    model = nn.Sequential(nn.Linear(4, 3), Scaled())
    with pytest.raises(tikhon.TikhonError, match=r"weights of 1 \(Scaled\) anew"):
        tikhon.Recipe(tikhon.CoTeaching()).prepare(model)
    tikhon.Recipe(tikhon.CoTeaching(peer=copy.deepcopy(model))).prepare(model)
    with pytest.raises(tikhon.TikhonError, match="forget_rate must be"):
        tikhon.CoTeaching(1.0)
    with pytest.raises(tikhon.TikhonError, match="gradual must be"):
        tikhon.CoTeaching(gradual=0)
    with pytest.raises(tikhon.TikhonError, match="co_teaching needs class scores"):
        tikhon.Recipe(tikhon.CoTeaching(), base=F.mse_loss)
