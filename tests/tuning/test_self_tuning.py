"""Self-tuning networks: losses against a loop, what a tuning step moves and where to, resume, export, wrong input."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import Diverged, SelfTuningNetwork, TikhonError
from tikhon.tuning.augmentations import TunedCutout, TunedMixUp, TunedNoise
from tikhon.tuning.effects import TunedDecay, TunedDropout, TunedSmoothing
from tikhon.tuning.hyperparameters import Count, Rate, Scale


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def cnn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)
    )


def task(seed: int = 1, shape=(6,)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, *shape, generator=generator), torch.randint(3, (12,), generator=generator)


def everything():
    return [
        TunedCutout(Rate(0.3), Count(1, high=2)),
        TunedNoise(Scale(0.2)),
        TunedMixUp(Scale(0.3)),
        TunedDropout(Rate(0.2, high=0.9), at="2"),
        TunedSmoothing(Rate(0.1)),
        TunedDecay(Scale(1e-3)),
    ]


def train(tuner, steps, shape=(6,), optimizer=None):
    optimizer = optimizer or torch.optim.SGD(tuner.model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        tuner.loss(*task(step, shape)).backward()
        optimizer.step()
        if tuner.due:
            tuner.tune(*task(100 + step, shape))
    return optimizer


def snapshot(module):
    return {name: one.clone() for name, one in module.state_dict().items() if isinstance(one, torch.Tensor)}


def test_it_begins_as_the_plain_network():
    x, _ = task()
    for make, given in ((mlp, x), (cnn, torch.randn(12, 1, 6, 6))):
        plain = make()
        tuner = SelfTuningNetwork(make(), [TunedNoise(Scale(0.1))])
        assert torch.equal(tuner(given), plain(given))
        assert torch.equal(tuner.model(given), plain(given))


def test_the_training_loss_is_that_of_a_loop_over_samples_with_weights_of_their_own():
    tuner = SelfTuningNetwork(mlp(), [TunedDecay(Scale(0.1)), TunedSmoothing(Rate(0.2))], spread=0.8, seed=3)
    train(tuner, 10)
    x, y = task(7)
    state, layers = tuner.hyperparameters, [tuner.model[0], tuner.model[2]]
    drawn = state.perturbed(12, tuner._effects.generator("perturbation", tuner.steps, x.device)).detach()
    found = tuner.loss(x, y)
    expected = []
    for i in range(12):
        with state.at(drawn[i]):
            folded = [layer.folded() for layer in layers]
        hidden = F.linear(x[i], *folded[0]).relu()
        loss = F.cross_entropy(F.linear(hidden, *folded[1]), y[i], label_smoothing=float(drawn[i, 1].sigmoid()))
        expected.append(loss + 0.5 * drawn[i, 0].exp() * sum(weight.square().sum() for weight, _ in folded))
    torch.testing.assert_close(found, torch.stack(expected).mean())
    with state.at(drawn[:1].expand(12, -1)):
        assert not torch.allclose(tuner.loss(x, y), found)  # the samples' own hyperparameters matter


def test_a_tuning_step_follows_the_gradient_through_the_response_and_moves_nothing_else():
    tuner = SelfTuningNetwork(mlp(), [TunedDecay(Scale(0.1))], entropy=None, learning_rate=1e-3)
    train(tuner, 30)
    tuner.loss(*task()).backward()
    weights, gradients = snapshot(tuner.model), [one.grad.clone() for one in tuner.model.parameters()]
    x, y = task(50)

    def validation(shift):
        with torch.no_grad(), tuner.hyperparameters.at(tuner.hyperparameters.value + shift):
            return F.cross_entropy(tuner.model(x), y).item()

    slope = (validation(0.05) - validation(-0.05)) / 0.1
    assert abs(slope) > 1e-4
    before, loss = tuner.hyperparameters.value.clone(), validation(0.0)
    gradient = torch.zeros(1)
    original = tuner.hyperparameters._optimizer.step
    tuner.hyperparameters._optimizer.step = lambda: (gradient.copy_(tuner.hyperparameters.value.grad), original())
    assert tuner.tune(x, y).item() == pytest.approx(loss)
    assert gradient.item() == pytest.approx(slope, rel=0.02)
    assert (tuner.hyperparameters.value - before).item() * slope < 0
    assert tuner.hyperparameters.value.grad is None
    assert all(torch.equal(one, weights[name]) for name, one in snapshot(tuner.model).items())
    assert all(torch.equal(one.grad, old) for one, old in zip(tuner.model.parameters(), gradients, strict=True))
    assert tuner.model.training


def test_it_finds_the_ridge_that_a_search_finds():
    generator = torch.Generator().manual_seed(0)

    def draw(rows):
        x = torch.randn(rows, 20, generator=generator)
        return x, x[:, :3].sum(1, keepdim=True) + 3.0 * torch.randn(rows, 1, generator=generator)

    (x, y), (vx, vy) = draw(30), draw(300)

    def exact(strength):
        w = torch.linalg.solve(2.0 * x.T @ x / 30 + strength * torch.eye(20), 2.0 * x.T @ y / 30)
        return F.mse_loss(vx @ w, vy).item()

    grid = torch.logspace(-3, 2, 60).tolist()
    best = min(map(exact, grid))
    model = nn.Linear(20, 1, bias=False)
    tuner = SelfTuningNetwork(
        model, [TunedDecay(Scale(0.01))], base=F.mse_loss, warm_up=200, entropy=None, spread=0.5, learning_rate=0.02
    )
    start = exact(0.01)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        tuner.loss(x, y).backward()
        optimizer.step()
        if tuner.due:
            tuner.tune(vx, vy)
    found = exact(tuner.log()["decay/strength"])
    assert found - best < 0.1 * (start - best)


def test_the_alternation_begins_after_the_warm_up():
    tuner = SelfTuningNetwork(mlp(), [TunedNoise(Scale(0.1))], warm_up=3, every=2)
    due = []
    for step in range(8):
        tuner.loss(*task(step))
        due.append(tuner.due)
    assert due == [False, False, False, False, True, False, True, False]


def test_a_spread_is_kept_without_entropy_and_grows_with_much():
    for entropy, compare in ((None, lambda one: one == 0.5), (1.0, lambda one: one > 0.51)):
        tuner = SelfTuningNetwork(mlp(), [TunedNoise(Scale(0.1))], entropy=entropy)
        train(tuner, 30)
        assert compare(round(tuner.log()["noise/scale/spread"], 6))


def test_training_reaches_every_new_parameter():
    tuner = SelfTuningNetwork(cnn(), everything())
    before = snapshot(tuner)
    train(tuner, 6, (1, 6, 6))
    moved = {name for name, one in snapshot(tuner).items() if not torch.equal(one, before[name])}
    assert moved == set(before) - {"hyperparameters.origin"}
    assert all(math.isfinite(one) for one in tuner.log().values())


def test_in_eval_mode_and_without_gradient_the_loss_is_plain_and_moves_nothing():
    tuner = SelfTuningNetwork(mlp(), everything()[1:])
    train(tuner, 4)
    x, y = task()
    expected = F.cross_entropy(tuner.model.eval()(x), y)
    before = tuner.steps
    assert torch.equal(tuner.loss(x, y), expected)
    tuner.train()
    with torch.no_grad():
        assert torch.equal(tuner.loss(x, y), expected)
    assert tuner.steps == before


def test_draws_do_not_depend_on_the_global_generator_and_leave_it_alone():
    found = []
    for seed in (0, 1):
        tuner = SelfTuningNetwork(cnn(), everything(), seed=5)
        torch.manual_seed(seed)
        train(tuner, 5, (1, 6, 6))
        found.append(snapshot(tuner))
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(1))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    other = SelfTuningNetwork(cnn(), everything(), seed=6)
    train(other, 5, (1, 6, 6))
    assert not torch.equal(snapshot(other)["model.0.weight"], found[0]["model.0.weight"])


def test_it_resumes_to_the_bit(tmp_path):
    tuner = SelfTuningNetwork(cnn(), everything())
    optimizer = train(tuner, 5, (1, 6, 6))
    torch.save({"tuner": tuner.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    train(tuner, 6, (1, 6, 6), optimizer)

    again = SelfTuningNetwork(cnn(seed=9), everything())
    optimizer = torch.optim.SGD(again.model.parameters(), lr=0.1, momentum=0.9)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(saved["tuner"])
    optimizer.load_state_dict(saved["optimizer"])
    train(again, 6, (1, 6, 6), optimizer)
    expected, found = snapshot(tuner), snapshot(again)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (again.steps, again.tunings) == (tuner.steps, tuner.tunings) == (11, 5)


def test_the_state_of_another_network_is_refused_and_changes_nothing():
    tuner = SelfTuningNetwork(mlp(), [TunedNoise(Scale(0.1))])
    before = snapshot(tuner)
    others = {
        "seed": SelfTuningNetwork(mlp(1), [TunedNoise(Scale(0.1))], seed=1),
        "names": SelfTuningNetwork(mlp(1), [TunedDecay(Scale(0.1))]),
        "scaling": SelfTuningNetwork(mlp(1), [TunedNoise(Scale(0.1)), TunedDecay(Scale(0.1))]),
        "model.0": SelfTuningNetwork(cnn(), [TunedNoise(Scale(0.1))]),
    }
    for name, other in others.items():
        with pytest.raises(TikhonError, match=name):
            tuner.load_state_dict(other.state_dict())
    with pytest.raises(TikhonError, match="another network"):
        tuner.load_state_dict({})
    assert all(torch.equal(one, before[name]) for name, one in snapshot(tuner).items())


def test_export_gives_a_plain_network_with_the_same_outputs():
    model = cnn()
    tuner = SelfTuningNetwork(model, everything())
    train(tuner, 6, (1, 6, 6))
    x = torch.randn(9, 1, 6, 6)
    expected = tuner.eval()(x)
    plain = tuner.train().export()
    fresh = cnn(seed=4)
    assert plain is model
    assert repr(plain) == repr(fresh)
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(x), expected)
    assert torch.equal(fresh.eval()(x), expected)
    assert plain.train()(x).isfinite().all()  # no effect is left
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in plain.modules())
    for call in (lambda: tuner.loss(*task()), lambda: tuner.tune(*task()), tuner.export):
        with pytest.raises(TikhonError, match="exported"):
            call()


def test_a_copy_is_a_network_of_its_own():
    tuner = SelfTuningNetwork(mlp(), everything()[1:])
    train(tuner, 4)
    other = copy.deepcopy(tuner)
    before = snapshot(tuner)
    train(other, 4)
    assert all(torch.equal(one, before[name]) for name, one in snapshot(tuner).items())
    train(tuner, 4)
    assert all(torch.equal(one, snapshot(other)[name]) for name, one in snapshot(tuner).items())


def test_only_the_named_layers_respond_and_inputs_may_be_a_mapping():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x, scale):
            return self.head(self.body(x).relu() * scale)

    model = Named()
    tuner = SelfTuningNetwork(model, [TunedDropout(Rate(0.2)), TunedNoise(Scale(0.2))], where="body")
    assert type(model.head) is nn.Linear
    x, y = task()
    for _ in range(3):
        tuner.loss({"x": x, "scale": torch.ones(12, 8)}, y).backward()
        tuner.tune((x, torch.ones(12, 8)), y)
    assert model.body.scaling.grad.any()
    assert type(tuner.export().body) is nn.Linear


def test_what_is_wrong_is_refused_before_the_model_is_changed():
    model = mlp()
    before = copy.deepcopy(model)
    noise = TunedNoise(Scale(0.1))
    for arguments, message in (
        ({"effects": []}, "nothing to tune"),
        ({"effects": [noise, TunedDropout(Rate(0.1), at="7")]}, "no module '7'"),
        ({"warm_up": -1}, "warm_up"),
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"spread": 0.0}, "spread"),
        ({"entropy": -1.0}, "entropy"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"where": "1"}, "no plain"),
        ({"base": "mse"}, "base="),
    ):
        with pytest.raises(TikhonError, match=message):
            SelfTuningNetwork(model, **({"effects": [noise]} | arguments))
    assert repr(model) == repr(before)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    tuner = SelfTuningNetwork(model, [noise])
    with pytest.raises(TikhonError, match="no plain"):
        SelfTuningNetwork(model, [noise])
    x, y = task()
    state = snapshot(tuner)
    for inputs, target, message in (
        (x, y[:5], "as many targets"),
        (x, y + 7, "Labels range"),
        (x, y.float(), "probabilities"),
        (x.long(), y, "floating-point"),
    ):
        with pytest.raises(TikhonError, match=message):
            tuner.loss(inputs, target)
    with pytest.raises(TikhonError, match="as many targets"):
        tuner.tune(x, y[:5])
    with pytest.raises(TikhonError, match="Labels range"):
        tuner.tune(x, y + 7)
    with pytest.raises(Diverged):
        tuner.loss(x * math.nan, y)
    with pytest.raises(Diverged):
        tuner.tune(x * math.nan, y)
    assert all(torch.equal(one, state[name]) for name, one in snapshot(tuner).items())
    assert (tuner.steps, tuner.tunings) == (0, 0)
    tuner.loss(x, y).backward()
    assert tuner.tune(x, y).isfinite()


def test_the_package_knows_it():
    assert tikhon.SelfTuningNetwork is SelfTuningNetwork
