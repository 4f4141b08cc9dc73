"""R-Drop: the two passes told apart by their masks, the loss rebuilt from them by torch, and what it leaves alone."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

import tikhon
from tikhon.methods.stochastic.r_drop import symmetric_divergence

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.tensor([0, 1, 2, 2, 1, 0])


class Watched(nn.Module):
    """Dropout before a linear layer; keeps the outputs of its passes."""

    def __init__(self, p=0.5):
        super().__init__()
        torch.manual_seed(0)
        self.dropout, self.head = nn.Dropout(p), nn.Linear(4, 3)
        self.outputs = []

    def forward(self, x):
        self.outputs.append(self.head(self.dropout(x)))
        return self.outputs[-1]


def attached(model, *methods, base=F.cross_entropy, samples=6):
    recipe = tikhon.Recipe(*methods, base=base, seed=5)
    recipe.prepare(model, samples=samples)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, steps=10)
    return recipe, optimizer


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_the_loss_is_that_of_both_passes(alpha, weighted):
    model = Watched().double()
    base = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.5, 3.0]).double() if weighted else None)
    recipe, _ = attached(model, tikhon.RDrop(alpha), base=base)
    loss = recipe.loss(X, Y)
    one, two = model.outputs
    p, q = Categorical(logits=one), Categorical(logits=two)
    divergence = 0.5 * (kl_divergence(p, q) + kl_divergence(q, p))
    weight = torch.tensor([1.0, 0.5, 3.0]).double()[Y] if weighted else torch.ones(6).double()
    expected = 0.5 * (base(one, Y) + base(two, Y)) + alpha * (weight * divergence).sum() / weight.sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    for one, other in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_no_mask_is_used_twice():
    """Neither within a step nor by the first pass of the next one; and what others draw goes on as without it."""
    model = Watched().double()
    recipe, optimizer = attached(model, tikhon.RDrop())
    torch.manual_seed(1)
    for _ in range(3):
        recipe.loss(X, Y).backward()
        optimizer.step()
    drawn = torch.rand(())
    masks = [output.tolist() for output in model.outputs]
    assert len(masks) == 6
    twin = Watched().double()
    plain, optimizer = attached(twin)
    torch.manual_seed(1)
    for _ in range(3):
        plain.loss(X, Y).backward()
        optimizer.step()
    assert torch.equal(drawn, torch.rand(()))

    def dropped(p=0.5):
        return F.dropout(torch.ones(6, 4).double(), p)

    torch.manual_seed(1)
    first = [dropped() for _ in range(3)]  # the masks of plain training
    model = Watched().double()
    seen = []
    model.dropout.register_forward_hook(lambda module, args, output: seen.append(output / args[0]))
    recipe, optimizer = attached(model, tikhon.RDrop())
    torch.manual_seed(1)
    for _ in range(3):
        recipe.loss(X, Y).backward()
        optimizer.step()
    for found, expected in zip(seen[::2], first, strict=True):
        torch.testing.assert_close(found, expected)
    rounded = [tuple(mask.round().flatten().tolist()) for mask in seen]
    assert len(set(rounded)) == 6


def test_a_repeated_pass_repeats_both_masks():
    """Under SAM with a radius of next to nothing the second loss is the first."""
    losses = []
    for methods in ((tikhon.RDrop(),), (tikhon.RDrop(), tikhon.SAM(radius=1e-12))):
        recipe, _ = attached(Watched().double(), *methods)
        torch.manual_seed(1)
        losses.append(recipe.loss(X, Y).detach())
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0.0)


def test_running_statistics_are_those_of_one_pass():
    def statistics(*methods):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)).double()
        recipe, _ = attached(model, *methods)
        recipe.loss(X, Y)
        return model[1].running_mean, model[1].num_batches_tracked

    for one, other in zip(statistics(tikhon.RDrop()), statistics(), strict=True):
        assert torch.equal(one, other)


def test_mixed_targets_and_memories():
    """Both passes see the same mixture; a memory is written once."""
    model = Watched().double()
    recipe, optimizer = attached(model, tikhon.RDrop(), tikhon.MixUp(), tikhon.ELR())
    recipe.loss(X, Y, index=torch.arange(6)).backward()
    optimizer.step()
    assert recipe.methods["elr"].memory.table.shape == (6, 3)


def test_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Conv1d(4, 3, 1)).double()
    outputs = []
    model.register_forward_hook(lambda module, args, output: outputs.append(output.movedim(1, -1)))
    recipe, _ = attached(model, tikhon.RDrop(2.0))
    x, y = torch.randn(2, 4, 5).double(), torch.randint(3, (2, 5))
    y[0, 2:] = -100
    loss, kept = recipe.loss(x, y), y >= 0
    one, two = (output[kept] for output in outputs)
    p, q = Categorical(logits=one), Categorical(logits=two)
    expected = (
        F.cross_entropy(torch.cat([one, two]), y[kept].repeat(2)) + (kl_divergence(p, q) + kl_divergence(q, p)).mean()
    )
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_certainty_is_finite(dtype):
    scores = torch.tensor([[300.0, 0.0], [0.0, 300.0]], dtype=dtype, requires_grad=True)
    p = F.softmax(scores, 1)
    found = symmetric_divergence(p, p.detach().flip(0))
    assert found.isfinite().all()
    assert torch.autograd.grad(found.sum(), scores)[0].isfinite().all()


def test_wrong_input_is_refused():
    recipe, _ = attached(Watched(p=0.0).double(), tikhon.RDrop())
    with pytest.raises(tikhon.TikhonError, match="gave the same output"):
        recipe.loss(X, Y)
    with pytest.raises(tikhon.TikhonError, match="alpha must be"):
        tikhon.RDrop(alpha=-1.0)
    with pytest.raises(tikhon.TikhonError, match="r_drop needs class scores"):
        tikhon.Recipe(tikhon.RDrop(), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="there can be only one"):
        tikhon.Recipe(tikhon.RDrop(), tikhon.MultiSampleDropout())
