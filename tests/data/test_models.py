import sys

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.data import Split, Task, build_model, load_task

DIGITS = load_task("digits", seed=0)


def task_of(inputs: torch.Tensor, target: torch.Tensor) -> Task:
    split = Split(inputs, target)
    classes = None if target.is_floating_point() else int(target.max()) + 1
    kind = "values" if classes is None else "classes"
    return Task("own", kind, classes, split, split, split, target, "made by hand")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_sizes_are_those_that_the_benchmarks_name():
    assert weights(build_model("mlp", DIGITS, seed=0)).numel() == 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert weights(build_model("cnn", DIGITS, seed=0)).numel() == pytest.approx(58_000, rel=0.02)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (1, 40), (2, 4)])
def test_output_shapes(name, shape):
    model = build_model(name, task_of(torch.rand(6, *shape), torch.arange(6) % 3), seed=0)
    assert model(torch.rand(6, *shape)).shape == (6, 3)
    values = task_of(torch.rand(6, *shape), torch.rand(6, 2))
    assert build_model(name, values, seed=0)(torch.rand(6, *shape)).shape == (6, 2)
    flat = task_of(torch.rand(6, *shape), torch.rand(6))
    assert build_model(name, flat, seed=0)(torch.rand(6, *shape)).shape == (6,)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_initial_weights_depend_on_the_seed_only(name):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(build_model(name, DIGITS, seed=0))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, weights(build_model(name, DIGITS, seed=0)))
    assert not torch.equal(first, weights(build_model(name, DIGITS, seed=1)))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_models_can_be_traced(name):
    model = build_model(name, DIGITS, seed=0).eval()
    traced = fx.symbolic_trace(model)
    assert torch.equal(traced(DIGITS.test.inputs), model(DIGITS.test.inputs))


def test_the_cnn_normalises_batches():
    assert any(isinstance(module, nn.BatchNorm2d) for module in build_model("cnn", DIGITS, seed=0).modules())


@pytest.mark.parametrize(("name", "epochs"), [("mlp", 10), ("cnn", 3)])
def test_the_networks_learn_digits(name, epochs):
    model = build_model(name, DIGITS, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for batch in torch.randperm(len(DIGITS.train), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(DIGITS.train.inputs[batch]), DIGITS.train.target[batch]).backward()
            optimizer.step()
    model.eval()
    assert (model(DIGITS.test.inputs).argmax(1) == DIGITS.test.target).float().mean() > 0.9


def test_names_and_inputs_that_do_not_suit_are_refused():
    with pytest.raises(TikhonError, match="Did you mean 'cnn'"):
        build_model("cn", DIGITS, seed=0)
    for shape in ((13,), (1, 3, 8), (1, 2, 8, 8)):
        with pytest.raises(TikhonError, match="Use mlp"):
            build_model("cnn", task_of(torch.rand(6, *shape), torch.arange(6) % 3), seed=0)


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(body):
        (tmp_path / "my_model.py").write_text(f"import torch\nfrom torch import nn\ndef build(task):\n    {body}\n")

    yield write
    sys.modules.pop("my_model", None)


def test_the_users_model_is_seeded_and_handed_over_untouched(own):
    own(
        "return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.BatchNorm1d(8), nn.Dropout().eval(), "
        "nn.Linear(8, task.outputs))"
    )
    first, again = (build_model("my_model:build", DIGITS, seed=4) for _ in range(2))
    assert torch.equal(weights(first), weights(again))
    assert [module.training for module in first] == [True, True, True, False, True]
    assert torch.equal(first[2].running_mean, torch.zeros(8))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "returned int; expected an nn.Module"),
        ("return nn.Linear(3, 10)", r"cannot take inputs of shape \(1, 8, 8\)"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))", r"gave \(2, 5\).*needs \(2, 10\)"),
        ("return nn.Sequential(nn.Flatten(), nn.LSTM(64, 10))", "gave tuple"),
        ("raise ValueError('no')", "raised ValueError: no"),
    ],
)
def test_a_users_model_that_does_not_fit_is_refused(own, body, message):
    own(body)
    with pytest.raises(TikhonError, match=message):
        build_model("my_model:build", DIGITS, seed=0)
