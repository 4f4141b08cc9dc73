"""Removing units: the smaller model must answer as the larger one did, whatever lies between its layers."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.core.pruning import apply_plan, multiply_adds, parameter_count, plan_of_zeros, remove
from tikhon.core.units import unit_parameters, units


class Residual(nn.Module):
    """Stem, two residual blocks with batch norm, and a classifier: a small ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "conv1": nn.Conv2d(6, 8, 3, padding=1, bias=False),
                    "bn1": nn.BatchNorm2d(8),
                    "conv2": nn.Conv2d(8, 6, 3, padding=1, bias=False),
                    "bn2": nn.BatchNorm2d(6),
                }
            )
            for _ in range(2)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            h = F.relu(block["bn1"](block["conv1"](x)))
            h = block["bn2"](block["conv2"](h))
            h += x
            x = F.relu(h, inplace=True)
        return self.head(x.mean((2, 3)))


class Functional(nn.Module):
    """Functions and methods instead of modules, with a view that reads the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3)
        self.fc1 = nn.Linear(5 * 9, 7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv(x)), 2)
        x = F.dropout(x.view(x.size(0), -1), 0.3, self.training)
        return self.fc2(F.gelu(self.fc1(x)) * 0.5 + 0.25)


class Gated(nn.Module):
    """A transformer's gated feed-forward part: two layers whose product is read by a third, inside a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.gate, self.up, self.down = nn.Linear(64, 9), nn.Linear(64, 9), nn.Linear(9, 64)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        h = self.norm(x)
        return self.head(x + self.down(F.silu(self.gate(h)) * self.up(h)))


class Transformer(nn.Module):
    """The rows of an image as tokens of torch's own layers."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.gelu, shared: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.1, activation, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        if shared:
            self.encoder.layers[1] = self.encoder.layers[0]
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x[:, 0]).mean(dim=1))


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 10), activation, nn.Dropout(0.5), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(8 * 4, 5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 3)),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp(nn.ReLU()),
    "sigmoid mlp": lambda: mlp(nn.Sigmoid()),
    "cnn": cnn,
    "residual": Residual,
    "functional": Functional,
    "gated": Gated,
    "transformer": Transformer,
}
LOST = {
    "mlp": {"1": 10, "4": 6},
    "sigmoid mlp": {"1": 10, "4": 6},
    "cnn": {"0": 6, "4": 8, "9": 5},
    "residual": {"stem.0": 6, "blocks.0.conv1": 8, "blocks.1.conv1": 8},
    "functional": {"conv": 5, "fc1": 7},
    "gated": {"gate": 9},
    "transformer": {"encoder.layers.0.linear1": 12, "encoder.layers.1.linear1": 12},
}
"""The groups that can be removed, with their sizes, as a person reads them off the model."""


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and running statistic at random, so that nothing is zero or one by default; in float64."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.double().state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.5 * noise)
    return model


def silence(model: nn.Module, every: bool = True) -> dict[str, Tensor]:
    """Zero the units 1 and 3 of every removable group (with `every`: biases and norms too); returns what is kept."""
    kept = {}
    parameters = dict(model.named_parameters())
    for group in units(model):
        if not group.fixed:
            for name in unit_parameters(group):
                if name in parameters and (every or name.removesuffix(".weight") in group.producers):
                    parameters[name].data[[1, 3]] = 0.0
            kept[group.name] = torch.tensor([j for j in range(group.size) if j not in (1, 3)])
    return kept


def images(rows: int = 5) -> Tensor:
    return torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_those_a_person_would_name(name: str) -> None:
    found = {group.name: group.size for group in units(MODELS[name]()) if not group.fixed}
    assert found == LOST[name]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_stay_and_everything_shrinks(name: str) -> None:
    model = randomised(MODELS[name]()).eval()
    expected_plan = silence(model)
    before, expected = parameter_count(model), model(images())
    operations = multiply_adds(model, images(1))
    plan = plan_of_zeros(model)
    assert {key: kept.tolist() for key, kept in plan.items()} == {k: v.tolist() for k, v in expected_plan.items()}
    assert remove(model, plan) is model
    torch.testing.assert_close(model(images()), expected, rtol=1e-12, atol=1e-12)
    assert parameter_count(model) < before
    assert multiply_adds(model, images(1)) < operations
    sizes = {group.name: group.size for group in units(model) if not group.fixed}
    assert sizes == {key: size - 2 for key, size in LOST[name].items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_model_takes_the_plan_and_the_state(name: str) -> None:
    model = randomised(MODELS[name]()).eval()
    silence(model)
    plan = plan_of_zeros(model)
    remove(model, plan)
    fresh = apply_plan(randomised(MODELS[name](), seed=1).eval(), plan)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images()), model(images()))
    assert str(fresh) == str(model)  # sizes in the modules' own words


@pytest.mark.parametrize("name", MODELS)
def test_the_pruned_model_trains(name: str) -> None:
    model = randomised(MODELS[name]())
    remove(model, (silence(model), plan_of_zeros(model))[1])
    model.train()
    model(images()).sum().backward()
    assert all(parameter.grad is not None and parameter.requires_grad for parameter in model.parameters())
    assert all(
        parameter.grad.shape == parameter.shape for parameter in model.parameters() if parameter.grad is not None
    )


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Softplus(), nn.ELU(inplace=True), nn.GELU()])
def test_constants_of_silent_units_move_into_the_next_bias(activation: nn.Module) -> None:
    model = randomised(mlp(activation)).eval()
    kept = silence(model, every=False)  # biases stay: each removed unit sends on f(bias)
    expected = model(images())
    remove(model, kept)
    torch.testing.assert_close(model(images()), expected, rtol=1e-12, atol=1e-12)


def conv_pair(**options: object) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Sigmoid(), nn.Conv2d(6, 2, 3, **options), nn.Flatten()
    )


@pytest.mark.parametrize("options", [{}, {"padding": 1, "padding_mode": "circular"}, {"padding": "valid"}])
def test_convolutions_absorb_constants_where_no_zeros_are_padded(options: dict[str, object]) -> None:
    model = randomised(conv_pair(**options)).eval()
    kept = silence(model, every=False)
    expected = model(images())
    assert plan_of_zeros(model)["0"].tolist() == kept["0"].tolist()
    torch.testing.assert_close(remove(model, kept)(images()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": "same"}, {"bias": False}])
def test_units_whose_constant_cannot_be_absorbed_stay(options: dict[str, object]) -> None:
    model = randomised(conv_pair(**options)).eval()
    kept = silence(model, every=False)
    before = copy.deepcopy(model.state_dict())
    assert plan_of_zeros(model) == {}
    with pytest.raises(TikhonError, match="unit 1 of 0 would change the output"):
        remove(model, kept)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_average_pooling_that_pads_keeps_units_with_constants() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(4 * 16, 2))
    randomised(model).eval()
    silence(model, every=False)
    assert plan_of_zeros(model) == {}
    silence(model)
    expected = model(images())
    assert model[3].in_features == 64
    remove(model, plan_of_zeros(model))
    assert model[3].in_features == 32
    torch.testing.assert_close(model(images()), expected, rtol=1e-12, atol=1e-12)


def test_operations_in_place_change_what_a_later_reader_sees() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.last = nn.Linear(64, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x.flatten(1))
            return self.last(self.act(h) + h)  # h is the result of the activation by now

    model = randomised(Reused()).eval()
    kept = silence(model, every=False)
    assert (model.first.bias[[1, 3]] < 0).any(), "a negative bias is what tells the two readings apart"
    expected = model(images())
    torch.testing.assert_close(remove(model, kept)(images()), expected, rtol=1e-12, atol=1e-12)


def test_one_unit_of_a_silent_layer_stays() -> None:
    model = randomised(mlp(nn.ReLU())).eval()
    model[1].weight.data.zero_()
    expected = model(images())
    remove(model, plan_of_zeros(model))
    assert model[1].out_features == 1
    torch.testing.assert_close(model(images()), expected, rtol=1e-12, atol=1e-12)


class Fixed(nn.Module):
    """Everything that must not be removed, one branch each."""

    def __init__(self) -> None:
        super().__init__()
        self.cat1, self.cat2 = nn.Linear(64, 4), nn.Linear(64, 4)
        self.normed, self.norm = nn.Linear(64, 4), nn.LayerNorm(4)
        self.twice = nn.Linear(4, 4)
        self.tied1, self.tied2 = nn.Linear(64, 4), nn.Linear(64, 4)
        self.tied2.weight = self.tied1.weight
        self.read = nn.Linear(64, 4)
        self.scaled, self.scale = nn.Linear(64, 4), nn.Parameter(torch.ones(4))
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.head = nn.Linear(8 * 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        both = torch.cat([self.cat1(x), self.cat2(x)], dim=1)
        steady = self.twice(self.twice(self.norm(self.normed(x))))
        more = self.tied1(x) + self.tied2(x) + F.linear(x, self.read.weight)
        wide = torch.cat([steady, more, self.scaled(x) * self.scale, steady], dim=1)
        return self.head(torch.cat([both, wide], dim=1))


def test_what_is_not_channel_wise_fixes_its_units() -> None:
    found = {name: group.fixed for group in units(Fixed()) for name in group.producers}
    assert all(found.values()), found
    assert "cat" in found["cat1"]
    assert "norm" in found["normed"]
    assert "more than once" in found["twice"]
    assert "more than once" in found["tied1"]
    assert "output" in found["head"]
    assert plan_of_zeros(Fixed()) == {}
    grouped = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 3))
    assert all("grouped" in group.fixed for group in units(grouped)[:2])


def test_columns_that_do_not_line_up_fix_units() -> None:
    rows = nn.Sequential(nn.Linear(8, 6), nn.Flatten(), nn.Linear(6 * 8, 2))  # (B, 8, 6) flattened: units interleave
    assert all(group.fixed for group in units(rows))
    across = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(6, 2))  # acts on the width, not on channels
    assert all(group.fixed for group in units(across))
    unread = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten(0))
    assert all(group.fixed for group in units(unread))


def test_feed_forward_parts_of_transformers_are_fixed_where_units_do_not_stand_alone() -> None:
    across = {g.name: g.fixed for g in units(Transformer(activation=lambda x: x.softmax(dim=-1)))}
    assert "its activation is not known" in across["encoder.layers.0.linear1"]
    shared = {g.name: g.fixed for g in units(Transformer(shared=True))}
    assert "used more than once" in shared["encoder.layers.0.linear1"]
    silent = randomised(Transformer(activation=nn.Sigmoid())).eval()  # each removed unit sends on sigmoid(bias)
    kept = silence(silent, every=False)
    expected = silent(images())
    torch.testing.assert_close(remove(silent, kept)(images()), expected, rtol=1e-12, atol=1e-12)


def test_units_that_are_not_silent_are_not_removed() -> None:
    model = randomised(mlp(nn.ReLU()))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TikhonError, match="would change the output"):
        remove(model, {"1": torch.arange(5)})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"11": torch.arange(2)}, "no group of units"),
        ({"6": torch.arange(2)}, "cannot be removed: it is an output"),
        ({"1": torch.tensor([0, 10])}, "10 units"),
        ({"1": torch.tensor([-1, 2])}, "10 units"),
        ({"1": torch.tensor([2, 2])}, "different indices"),
        ({"1": torch.tensor([], dtype=torch.int64)}, "at least one"),
    ],
)
def test_wrong_plans_are_refused(plan: dict[str, Tensor], message: str) -> None:
    model = mlp(nn.ReLU())
    for act in (remove, apply_plan):
        with pytest.raises(TikhonError, match=message):
            act(model, plan)
    assert model[1].out_features == 10


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h) if h.sum() > 0 else self.head(-h)


def test_models_that_cannot_be_traced() -> None:
    model = randomised(Branching()).eval()
    with pytest.raises(TikhonError, match=r"cannot trace Branching: TraceError.*Name a submodule"):
        units(model)
    with pytest.raises(TikhonError, match="Did you mean 'body'"):
        units(model, "bodi")
    found = {group.name: group.fixed for group in units(model, "body")}
    assert found == {"body.1": "", "body.3": "it leaves the part"}
    model.body[1].weight.data[2] = 0.0
    expected = model(images())
    remove(model, plan_of_zeros(model, "body"), "body")
    assert model.body[1].out_features == 5
    torch.testing.assert_close(model(images()), expected, rtol=1e-12, atol=1e-12)


def test_multiply_adds_against_hand_counts() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 9, 5))
    model.train()
    assert multiply_adds(model, torch.zeros(2, 1, 8, 8)) == 2 * (9 * 4 * 9 + 36 * 5)
    assert model.training
    assert not model[0]._forward_hooks
    assert parameter_count(model) == 4 * 9 + 4 + 36 * 5 + 5
