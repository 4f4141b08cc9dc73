"""Ghost batch normalisation against torch's batch norm, called for one chunk after another."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tikhon
from tikhon.core.passes import frozen_statistics
from tikhon.methods.dynamics.ghost_bn import chunk_sizes, normalised_chunks

SHAPES = {nn.BatchNorm1d: (), nn.BatchNorm2d: (4, 3), nn.BatchNorm3d: (2, 3, 2)}
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def draw(*shape, seed=0):
    return 3.0 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 1.0


def ghosts(model, size):
    method = tikhon.GhostBatchNorm(size=size)
    method.check(model)
    method.prepare(model)
    return model


def trained(norm):
    """A batch norm with weights and statistics that are not the initial ones."""
    with torch.no_grad():
        for number, parameter in enumerate(norm.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=90 + number))
    return norm


def assert_same_state(one, other):
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("batch", [16, 18, 7])
def test_a_loop_of_batch_norm_over_the_chunks_gives_the_same(kind, momentum, batch):
    plain = nn.Sequential(trained(kind(5, momentum=momentum, dtype=torch.float64)))
    ghost = ghosts(copy.deepcopy(plain), size=4)
    for step in range(3):
        inputs = draw(batch, 5, *SHAPES[kind], seed=step)
        one, other = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
        expected = torch.cat([plain(chunk) for chunk in one.tensor_split(max(1, batch // 4))])
        found = ghost(other)
        torch.testing.assert_close(found, expected, **EXACT)
        cotangent = draw(*found.shape, seed=50 + step)
        expected.backward(cotangent)
        found.backward(cotangent)
        torch.testing.assert_close(other.grad, one.grad, **EXACT)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ghost.get_parameter(name).grad, parameter.grad, **EXACT)
    assert_same_state(ghost.state_dict(), plain.state_dict())
    torch.testing.assert_close(ghost.eval()(inputs), plain.eval()(inputs), **EXACT)


def test_chunks_matter():
    plain = nn.Sequential(nn.BatchNorm1d(5, dtype=torch.float64))
    inputs = draw(16, 5)
    assert (ghosts(copy.deepcopy(plain), size=4)(inputs) - plain(inputs)).abs().max() > 0.1


@pytest.mark.parametrize("size", [16, 9, 1000])
def test_one_chunk_is_batch_norm_to_the_bit(size):
    plain = nn.Sequential(nn.BatchNorm2d(5))
    ghost = ghosts(copy.deepcopy(plain), size=size)
    inputs = draw(16, 5, 3, 3).float()
    assert torch.equal(ghost(inputs), plain(inputs))
    assert all(map(torch.equal, ghost.state_dict().values(), plain.state_dict().values()))


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}, {"eps": 0.5}])
def test_options_of_batch_norm(options):
    plain = nn.Sequential(nn.BatchNorm1d(5, dtype=torch.float64, **options))
    ghost = ghosts(copy.deepcopy(plain), size=4)
    inputs = draw(12, 5, 2)
    torch.testing.assert_close(ghost(inputs), torch.cat([plain(chunk) for chunk in inputs.split(4)]), **EXACT)
    assert_same_state(ghost.state_dict(), plain.state_dict())
    torch.testing.assert_close(ghost.eval()(inputs), plain.eval()(inputs), **EXACT)


def test_chunk_sizes_are_those_of_tensor_split_and_never_smaller_than_asked():
    for batch in range(1, 80):
        for size in range(2, 20):
            expected = [len(chunk) for chunk in torch.arange(batch).tensor_split(max(1, batch // size))]
            found = [samples for chunks, samples in chunk_sizes(batch, size) for _ in range(chunks)]
            assert found == expected
            assert min(found) >= min(size, batch)


def test_statistics_of_the_chunks():
    inputs = draw(6, 2, 3)
    outputs, means, variances = normalised_chunks(inputs, 2, None, None, 1e-12)
    for k, chunk in enumerate(inputs.split(3)):
        values = chunk.transpose(0, 1).flatten(1)
        torch.testing.assert_close(means[k], values.mean(1), **EXACT)
        torch.testing.assert_close(variances[k], values.var(1), **EXACT)
        spread = outputs[3 * k : 3 * k + 3].transpose(0, 1).flatten(1).std(1, correction=0)
        torch.testing.assert_close(spread, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("whole", [False, True])
def test_bfloat16_activations(whole):
    model = nn.Sequential(nn.BatchNorm2d(3))
    ghost = ghosts(model.bfloat16() if whole else model, size=4)
    inputs = draw(8, 3, 2, 2).bfloat16()
    expected = torch.cat([nn.BatchNorm2d(3)(chunk) for chunk in inputs.float().split(4)])
    torch.testing.assert_close(ghost(inputs).float(), expected, rtol=0.05, atol=0.05)
    assert ghost[0].running_mean.dtype == (torch.bfloat16 if whole else torch.float32)


def test_frozen_statistics_stay_and_evaluation_uses_running_ones():
    ghost = ghosts(nn.Sequential(trained(nn.BatchNorm1d(5, dtype=torch.float64))), size=4)
    before = {name: value.clone() for name, value in ghost.state_dict().items()}
    with frozen_statistics(ghost):
        ghost(draw(16, 5))
    assert all(map(torch.equal, ghost.state_dict().values(), before.values()))
    ghost.eval()(draw(16, 5))
    assert all(map(torch.equal, ghost.state_dict().values(), before.values()))


class Shared(nn.Module):
    """One batch norm under two names, and a hook of the user's on it."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(3)
        self.second = self.first
        self.called = 0
        self.first.register_forward_hook(self.count)

    def count(self, *_):
        self.called += 1

    def forward(self, inputs):
        return self.second(self.first(inputs))


def test_same_tensors_same_names_and_plain_modules_after_export():
    model = Shared()
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    recipe = tikhon.Recipe(tikhon.GhostBatchNorm(size=2))
    recipe.prepare(model)
    assert isinstance(model.first, nn.BatchNorm1d)
    assert type(model.first) is not nn.BatchNorm1d
    assert model.second is model.first
    model(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    assert model.called == 2
    exported = recipe.export()
    assert type(exported.first) is nn.BatchNorm1d
    assert vars(exported.first).keys() == vars(nn.BatchNorm1d(3)).keys()
    now = dict(exported.named_parameters()) | dict(exported.named_buffers())
    assert now.keys() == held.keys()
    assert all(now[name] is held[name] for name in held)


def test_in_a_recipe_with_a_second_pass():
    """With SAM the statistics move once a step: to what the first pass alone would give."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()
    inputs, labels = draw(12, 4), torch.arange(12) % 2
    states = []
    for methods in ([], [tikhon.SAM(radius=0.5)]):
        model = copy.deepcopy(start)
        recipe = tikhon.Recipe(tikhon.GhostBatchNorm(size=4), *methods)
        recipe.prepare(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recipe.attach(optimizer)
        recipe.loss(inputs, labels).backward()
        optimizer.step()
        assert int(model[1].num_batches_tracked) == 3
        states.append(model.state_dict())
    assert torch.equal(states[0]["1.running_mean"], states[1]["1.running_mean"])
    assert not torch.equal(states[0]["0.weight"], states[1]["0.weight"])


def test_it_compiles_without_graph_breaks():
    ghost = ghosts(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), size=4)
    eager = copy.deepcopy(ghost)
    compiled = torch.compile(ghost, backend="eager", fullgraph=True)
    for batch in (8, 10):
        inputs = draw(batch, 3).float()
        torch.testing.assert_close(compiled(inputs), eager(inputs))
    assert torch.equal(ghost[1].running_var, eager[1].running_var)


def test_errors():
    with pytest.raises(tikhon.TikhonError, match="nothing to normalise"):
        ghosts(nn.Linear(3, 2), size=4)
    for size in (1, 0, 2.5, True, "a"):
        with pytest.raises(tikhon.TikhonError, match="size must be an integer of at least 2"):
            tikhon.GhostBatchNorm(size=size)
    with pytest.raises(ValueError, match="expected 4D input"):
        ghosts(nn.Sequential(nn.BatchNorm2d(3)), size=2)(torch.zeros(8, 3))
