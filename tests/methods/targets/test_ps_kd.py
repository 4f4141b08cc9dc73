"""PS-KD: targets from exactly the epoch before, against a loop over samples; unseen samples, mixing, wrong input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.targets.ps_kd import known, softened

N, K = 7, 4


def start(*methods, epochs=None, seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(3, K).double()
    recipe = tikhon.Recipe(*methods, seed=4)
    recipe.prepare(model, samples=N)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.5)
    recipe.attach(optimizer, epochs=epochs)
    return model, recipe, optimizer


def data():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(N, 3, generator=generator).double(), torch.randint(0, K, (N,), generator=generator)


def step(recipe, optimizer, x, y, rows):
    optimizer.zero_grad()
    loss = recipe.loss(x[rows], y[rows], index=rows)
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_softened_targets():
    y, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25, 0.75]])
    torch.testing.assert_close(softened(y, p, 0.4), torch.tensor([[0.7, 0.3]]))


def test_samples_without_a_prediction_keep_their_label():
    predictions = torch.tensor([[0.0, 0.0], [0.25, 0.75]])
    assert torch.equal(known(predictions, torch.eye(2)), torch.tensor([[1.0, 0.0], [0.25, 0.75]]))


def test_training_agrees_with_a_loop_over_epochs():
    """Small batches, so that predictions of the same epoch would show; one sample is left out of the first epoch."""
    x, y = data()
    epochs = [[[0, 1, 2], [3, 4, 5]], [[6, 5, 0], [1, 4, 3], [2]], [[2, 6], [0, 1], [5, 4, 3]]]
    model, recipe, optimizer = start(tikhon.PSKD(tikhon.linear(0.0, 0.9, by="epoch")), epochs=len(epochs))
    twin = nn.Linear(3, K).double()
    twin.load_state_dict(model.state_dict())
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=0.7, momentum=0.5)

    previous = {}
    for t, batches in enumerate(epochs, start=1):
        alpha, current = 0.9 * t / len(epochs), dict(previous)
        for batch in batches:
            rows = torch.tensor(batch)
            found = step(recipe, optimizer, x, y, rows)
            twin_optimizer.zero_grad()
            output, targets = twin(x[rows]), []
            for i in batch:
                label = F.one_hot(y[i], K).double()
                targets.append((1 - alpha) * label + alpha * previous[i] if i in previous else label)
            current |= {i: p.detach() for i, p in zip(batch, output.softmax(1), strict=True)}
            expected = F.cross_entropy(output, torch.stack(targets))
            expected.backward()
            twin_optimizer.step()
            torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=0.0)
        recipe.end_epoch()
        previous = current
    torch.testing.assert_close(model.weight, twin.weight, rtol=1e-10, atol=1e-12)


def test_the_first_epoch_has_hard_labels():
    x, y = data()
    rows = torch.arange(N)
    model, recipe, optimizer = start(tikhon.PSKD(0.5))
    expected = F.cross_entropy(model(x), y).detach()
    assert torch.equal(step(recipe, optimizer, x, y, rows), expected)
    later = F.cross_entropy(model(x), y).detach()
    assert torch.equal(step(recipe, optimizer, x, y, rows), later)
    recipe.end_epoch()
    assert abs(step(recipe, optimizer, x, y, rows) - F.cross_entropy(model(x), y)) > 1e-3


def test_under_mixing_each_part_has_its_own_prediction_of_the_clean_input():
    x, y = torch.eye(3).double(), torch.tensor([3, 0, 2])
    ids = torch.tensor([6, 1, 4])
    model, recipe, _ = start(tikhon.PSKD(0.6), tikhon.MixUp())
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    clean = model(x).softmax(1).detach()
    for group in recipe._run.optimizers[0].param_groups:
        group["lr"] = 0.0
    recipe.loss(x, y, index=ids).backward()
    recipe._run.optimizers[0].step()
    recipe.end_epoch()
    seen.clear()
    loss = recipe.loss(x, y, index=ids)
    mixed = seen[0]
    assert not torch.equal(mixed, x)
    targets = mixed @ (0.4 * F.one_hot(y, K).double() + 0.6 * clean)
    torch.testing.assert_close(loss, F.cross_entropy(model(mixed), targets), rtol=1e-10, atol=0.0)


def test_it_makes_predictions_less_certain():
    """Separable data, fitted for long: with it the largest probability stays clearly below that of plain training."""
    x, y = data()

    def certainty(*methods):
        model, recipe, optimizer = start(*methods, epochs=200)
        for _ in range(200):
            step(recipe, optimizer, x, y, torch.arange(N))
            recipe.end_epoch()
        return float(model(x).detach().softmax(1).max(1).values.mean())

    assert certainty(tikhon.PSKD()) < certainty() - 0.02


def test_it_needs_the_number_of_epochs_for_its_schedule():
    with pytest.raises(tikhon.TikhonError, match="epochs="):
        start(tikhon.PSKD())


def test_wrong_input_is_refused():
    with pytest.raises(tikhon.TikhonError, match="alpha"):
        tikhon.PSKD(1.5)
    with pytest.raises(tikhon.TikhonError, match="ps_kd needs class scores"):
        tikhon.Recipe(tikhon.PSKD(), base=F.mse_loss)
    x, y = data()
    _, recipe, optimizer = start(tikhon.PSKD(0.5))
    step(recipe, optimizer, x, y, torch.arange(N))
    recipe.end_epoch()
    with pytest.raises(tikhon.TikhonError, match="to be ignored"):
        recipe.loss(x, torch.where(y == y[0], -100, y), index=torch.arange(N))


def test_one_prediction_a_position_is_refused():
    recipe = tikhon.Recipe(tikhon.PSKD(0.5))
    model = recipe.prepare(nn.Conv1d(1, K, 1), samples=2)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(tikhon.TikhonError, match="one prediction a sample"):
        recipe.loss(torch.zeros(2, 1, 5), torch.zeros(2, 5, dtype=torch.int64), index=torch.arange(2))
