"""Manifold mixup: the layer, the pairs and the loss against a pass written by hand; which passes are mixed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import tikhon

INPUTS = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3
INDEX = torch.arange(12)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def attached(model, *methods, seed=3, **options):
    recipe = tikhon.Recipe(*methods, seed=seed, **options)
    recipe.prepare(model, samples=12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    recipe.attach(optimizer, steps=100)
    return recipe, optimizer


def mixed_by_hand(model, draw):
    """The output of a pass whose features after one layer are mixed, and its loss."""
    name, _, permutation, share = draw
    features = INPUTS
    for number, layer in enumerate(model):
        features = layer(features)
        if str(number) == name:
            features = torch.stack([share * features[i] + (1 - share) * features[permutation[i]] for i in range(12)])
    losses = share * F.cross_entropy(features, LABELS) + (1 - share) * F.cross_entropy(features, LABELS[permutation])
    return features, losses


def test_features_after_the_layer_drawn_are_mixed_and_the_losses_alike():
    model = network()
    method = tikhon.ManifoldMixup(at="[13]")
    recipe, optimizer = attached(model, method)
    layers = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = recipe.loss(INPUTS, LABELS)
        loss.backward()
        if method._draw is None:
            layers.append("inputs")
        else:
            layers.append(method._draw[0])
            plain = network()
            plain.load_state_dict(model.state_dict())
            _, expected = mixed_by_hand(plain, method._draw)
            expected.backward()
            torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
            for one, other in zip(model.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-12)
            assert abs(loss - F.cross_entropy(plain(INPUTS), LABELS)) > 1e-6
        optimizer.step()
    assert set(layers) == {"inputs", "1", "3"}


def test_layers_are_drawn_evenly():
    model = network()
    method = tikhon.ManifoldMixup(at=("1", "3"))
    recipe, optimizer = attached(model, method)
    counts = {"inputs": 0, "1": 0, "3": 0}
    for _ in range(300):
        recipe.loss(INPUTS, LABELS)
        optimizer.step()
        counts["inputs" if method._draw is None else method._draw[0]] += 1
    assert all(abs(count - 100) < 4 * (300 * 2 / 9) ** 0.5 for count in counts.values())


def trained(*methods, steps=5):
    model = network()
    recipe, optimizer = attached(model, *methods)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS, index=INDEX).backward()
        optimizer.step()
    return recipe, model.state_dict()


def assert_same_to_rounding(found, expected):
    """MixUp multiplies and adds in place, ManifoldMixup interpolates."""
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight)


def test_at_the_input_alone_it_is_mixup_by_the_same_draws():
    _, expected = trained(tikhon.MixUp(alpha=2.0).named("same"))
    _, found = trained(tikhon.ManifoldMixup(at=()).named("same"))
    _, plain = trained()
    assert_same_to_rounding(found, expected)
    assert not torch.allclose(found["0.weight"], plain["0.weight"])


def test_after_an_identity_at_the_input_it_is_mixup_as_well():
    def begun_by_identity(method):
        model = nn.Sequential(nn.Identity(), *network())
        recipe, optimizer = attached(model, method)
        for _ in range(5):
            optimizer.zero_grad()
            recipe.loss(INPUTS, LABELS).backward()
            optimizer.step()
        return model.state_dict()

    expected = begun_by_identity(tikhon.MixUp(alpha=2.0).named("same"))
    found = begun_by_identity(tikhon.ManifoldMixup(at="0", inputs=False).named("same"))
    assert_same_to_rounding(found, expected)


class Sees(tikhon.Method):
    """Records the clean output and an extra pass of every step."""

    card = tikhon.MixUp.card

    def __init__(self):
        super().__init__()
        self.clean, self.extra = [], []

    def remember(self, output, target, step):
        self.clean.append(step.clean(output))
        self.extra.append(step.forward(INPUTS).detach())


def test_clean_outputs_and_extra_passes_are_not_mixed():
    model = network()
    sees, method = Sees(), tikhon.ManifoldMixup(at="[13]", inputs=False)
    recipe, optimizer = attached(model, sees, method)
    for _ in range(4):
        plain = model.eval()(INPUTS).detach()
        model.train()
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS).backward()
        assert method._mixed == 1
        torch.testing.assert_close(sees.clean[-1], plain, rtol=0, atol=0)
        torch.testing.assert_close(sees.extra[-1], plain, rtol=0, atol=0)
        optimizer.step()


def test_elr_remembers_predictions_on_clean_samples():
    model = network()
    recipe, optimizer = attached(model, tikhon.ELR(momentum=0.0), tikhon.ManifoldMixup(at="1", inputs=False))
    expected = model(INPUTS).detach().softmax(1).clamp(1e-4, 1 - 1e-4)
    recipe.loss(INPUTS, LABELS, index=INDEX).backward()
    optimizer.step()
    table = recipe.methods["elr"].memory.table
    torch.testing.assert_close(table, expected / expected.sum(1, keepdim=True), check_dtype=False)


def test_a_second_pass_repeats_the_mix():
    model = network()
    method = tikhon.ManifoldMixup(at="1", inputs=False)
    recipe, _ = attached(model, method, tikhon.SAM(radius=1e-9))
    seen = []
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    recipe.loss(INPUTS, LABELS).backward()
    plain = network()[:2](INPUTS)
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-7)
    assert not seen[0].allclose(plain)


def test_calls_of_the_callers_own_are_not_mixed():
    model = network()
    recipe, optimizer = attached(model, tikhon.ManifoldMixup(at="1", inputs=False))
    recipe.loss(INPUTS, LABELS).backward()
    assert torch.equal(model(INPUTS), network()(INPUTS))
    assert torch.equal(model(INPUTS[:5]), network()(INPUTS[:5]))  # of another size, too
    optimizer.step()


class Checkpointed(nn.Module):
    def __init__(self, active):
        super().__init__()
        self.body, self.active = network(), active

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=False) if self.active else self.body(x)


def test_what_a_checkpoint_computes_again_is_mixed_again():
    gradients = []
    for active in (False, True):
        model = Checkpointed(active)
        recipe, _ = attached(model, tikhon.ManifoldMixup(at="body.[13]", inputs=False))
        recipe.loss(INPUTS, LABELS).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_every_layer_is_compiled_once():
    model, counter = network(), CompileCounter()
    recipe = tikhon.Recipe(tikhon.ManifoldMixup(at="[13]"), seed=3)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recipe.attach(optimizer, model=torch.compile(model, backend=counter, fullgraph=True))
    for _ in range(20):
        recipe.loss(INPUTS, LABELS).backward()
        optimizer.step()
    assert counter.frame_count == 3  # after one, after the other, and neither: the input


def test_evaluation_and_export_are_plain():
    recipe, state = trained(tikhon.ManifoldMixup(at="[13]"))
    plain = network()
    plain.load_state_dict(state)
    assert torch.equal(recipe.export().train()(INPUTS), plain(INPUTS))


class Awkward(nn.Module):
    """Calls a layer never, once or twice."""

    def __init__(self, calls):
        super().__init__()
        self.layer, self.head, self.calls = nn.Linear(4, 4), nn.Linear(4, 3), calls

    def forward(self, x):
        for _ in range(self.calls):
            x = self.layer(x)
        return self.head(x)


@pytest.mark.parametrize("calls", [0, 2])
def test_a_layer_that_is_not_called_once_is_refused(calls):
    recipe, _ = attached(Awkward(calls).double(), tikhon.ManifoldMixup(at="layer", inputs=False))
    with pytest.raises(tikhon.TikhonError, match=f"layer was called {calls} times"):
        recipe.loss(INPUTS, LABELS)
    attached(Awkward(1).double(), tikhon.ManifoldMixup(at="layer", inputs=False))[0].loss(INPUTS, LABELS)


def test_errors():
    with pytest.raises(tikhon.TikhonError, match="alpha must be"):
        tikhon.ManifoldMixup(at="1", alpha=-1.0)
    with pytest.raises(tikhon.TikhonError, match="needs layers"):
        tikhon.ManifoldMixup(at=(), inputs=False)
    with pytest.raises(tikhon.TikhonError, match="has no module '9'"):
        attached(network(), tikhon.ManifoldMixup(at="9"))
    flat = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (12, 4)), nn.Linear(4, 3)).double()
    recipe, _ = attached(flat, tikhon.ManifoldMixup(at="0", inputs=False))
    with pytest.raises(tikhon.TikhonError, match=r"0 returns a tensor \(48,\)"):
        recipe.loss(INPUTS, LABELS)
