"""ELR: closed forms, a loop over samples, the clamp, mixing, and that it keeps wrong labels from being memorised."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.elr import elr_penalty, updated_memory


def test_penalty_is_log_of_one_minus_the_agreement():
    p, t = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]], dtype=torch.float64).split(1)
    assert float(elr_penalty(p, t)) == pytest.approx(math.log(1 - (0.35 + 0.05 + 0.025)), rel=1e-12)


def test_gradient_is_the_closed_form():
    """d/dp_k log(1 - <p, t>) = -t_k / (1 - <p, t>)."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.6, 0.1]], dtype=torch.float64)
    elr_penalty(p, t).sum().backward()
    torch.testing.assert_close(p.grad, -t / (1 - (p.detach() * t).sum(1, keepdim=True)), rtol=1e-12, atol=0.0)
    assert torch.autograd.gradcheck(lambda q: elr_penalty(q, t), p)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_certainty_is_finite_in_every_precision(dtype):
    """The clamp bounds the term at log(1e-4); in half precision 1 - 1e-4 is 1, and the bound would be gone."""
    logits = torch.tensor([[80.0, 0.0], [0.0, 80.0]], dtype=dtype, requires_grad=True)
    probabilities = logits.softmax(1)
    memory = updated_memory(torch.zeros(2, 2), probabilities.detach(), 0.0)
    penalty = elr_penalty(probabilities, torch.eye(2, dtype=dtype))
    assert torch.allclose(penalty.double(), torch.full((2,), math.log(1e-4)).double(), rtol=2e-3)
    penalty.sum().backward()
    assert not logits.grad.any()  # blocked, where the network is certain
    assert bool((memory > 0).all())


def test_one_class():
    assert float(elr_penalty(torch.ones(1, 1), torch.ones(1, 1))) == pytest.approx(math.log(1e-4), rel=1e-2)


def test_memory_follows_the_official_recursion():
    """From zero, without bias correction: after n equal predictions the row sums to 1 - momentum^n."""
    p, memory = torch.tensor([[0.6, 0.4]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    for n in range(1, 5):
        memory = updated_memory(memory, p, 0.7)
        torch.testing.assert_close(memory, (1 - 0.7**n) * p, rtol=1e-12, atol=0.0)


def trained(*methods, steps, x, y, index=None, width=5, lr=0.5):
    torch.manual_seed(0)
    model = nn.Linear(x.shape[1], width).double()
    recipe = tikhon.Recipe(*methods, seed=2)
    recipe.prepare(model, samples=len(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    recipe.attach(optimizer)
    losses = []
    for rows in steps:
        optimizer.zero_grad()
        loss = recipe.loss(x[rows], y[rows], index=rows)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return model, recipe, losses


def test_training_agrees_with_a_loop_over_samples():
    random = np.random.default_rng(0)
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.tensor(random.integers(0, 5, 7))
    steps = [torch.tensor(random.permutation(7)[:4]) for _ in range(6)]
    model, recipe, losses = trained(tikhon.ELR(strength=2.0, momentum=0.6), steps=steps, x=x, y=y)

    torch.manual_seed(0)
    twin, memory = nn.Linear(3, 5).double(), {}
    for rows, found in zip(steps, losses, strict=True):
        loss = torch.zeros((), dtype=torch.float64)
        for i in rows.tolist():
            logits = twin(x[i])
            p = logits.softmax(0).clamp(1e-4, 1 - 1e-4)
            memory[i] = 0.6 * memory.get(i, 0.0) + 0.4 * (p / p.sum()).detach()
            task = F.cross_entropy(logits, y[i])
            loss = loss + (task + 2.0 * torch.log(1 - (memory[i] * p).sum())) / len(rows)
        twin.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter -= 0.5 * parameter.grad
        assert found == pytest.approx(float(loss.detach()), rel=1e-10)
    torch.testing.assert_close(model.weight, twin.weight, rtol=1e-10, atol=1e-12)
    for i, row in memory.items():
        torch.testing.assert_close(recipe.methods["elr"].memory.table[i], row, rtol=1e-10, atol=0.0)


def test_under_mixing_the_memory_holds_clean_predictions_and_the_term_mixes_memories():
    x, y = torch.eye(4, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(0)
    model, seen = nn.Linear(4, 4).double(), []
    clean = model(x).softmax(1).detach()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    recipe = tikhon.Recipe(tikhon.ELR(strength=2.0, momentum=0.25), tikhon.MixUp(), seed=1)
    recipe.prepare(model, samples=10)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    ids = torch.tensor([7, 2, 9, 0])
    loss = recipe.loss(x, y, index=ids)
    mixed = seen[0]
    assert not torch.equal(mixed, x)
    memory = 0.75 * clean  # after the first step, from zero
    torch.testing.assert_close(recipe.methods["elr"].memory.read(ids), memory, rtol=1e-10, atol=0.0)
    output = model(mixed)
    agreement = (output.softmax(1) * (mixed @ memory)).sum(1)
    expected = F.cross_entropy(output, mixed) + 2.0 * torch.log(1 - agreement).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0.0)


def test_wrong_labels_are_memorised_without_it_and_not_with_it():
    """Two far clusters with a quarter of the labels flipped, and features enough to memorise every sample."""
    generator = torch.Generator().manual_seed(0)
    n = 60
    truth = torch.arange(n) % 2
    signal = (2.0 * truth - 1.0)[:, None] * torch.ones(n, 3)
    x = torch.cat([signal + 0.3 * torch.randn(n, 3, generator=generator), 1.5 * torch.eye(n)], 1).double()
    wrong = torch.arange(n) % 4 == 3
    y = torch.where(wrong, 1 - truth, truth)
    steps = [torch.arange(n)] * 600

    def memorised(*methods):
        model, _, _ = trained(*methods, steps=steps, x=x, y=y, width=2, lr=2.0)
        return float((model(x).argmax(1) == y)[wrong].double().mean())

    assert memorised() > 0.9
    assert memorised(tikhon.ELR(strength=3.0, momentum=0.7)) < 0.4


def test_without_sample_ids_it_is_refused():
    recipe = tikhon.Recipe(tikhon.ELR())
    with pytest.raises(tikhon.TikhonError, match="samples=len"):
        recipe.prepare(nn.Linear(3, 2))
    model = recipe.prepare(nn.Linear(3, 2), samples=4)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(tikhon.TikhonError, match="index=index"):
        recipe.loss(torch.zeros(2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize("arguments", [{"strength": -1.0}, {"momentum": 1.2}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.ELR(**arguments)
