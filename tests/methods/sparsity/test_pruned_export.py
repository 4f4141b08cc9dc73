"""What export promises of the methods that remove units: a smaller network that answers the same, for every kind."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.core.method import Method
from tikhon.core.pruning import apply_plan, multiply_adds, parameter_count
from tikhon.core.units import unit_parameters, units


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.GELU(), nn.Linear(24, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ResidualCnn(nn.Module):
    """Two residual blocks with batch norm: the stem's channels and what the blocks add to them are one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
                *(nn.Conv2d(16, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class Transformer(nn.Module):
    """The rows of an image as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(8, 16), nn.Parameter(torch.zeros(8, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.squeeze(1)) + self.places).mean(dim=1))


@dataclass(frozen=True)
class Case:
    """A network, the groups that can lose units (coupled ones under the name of their first layer), how long it trains,
    and the envelope's strength."""

    make: Callable[[], nn.Module]
    groups: frozenset[str]
    epochs: int
    envelope: float


NETWORKS = {
    "mlp": Case(Mlp, frozenset({"layers.1", "layers.3"}), 15, 0.1),
    "residual cnn": Case(ResidualCnn, frozenset({"stem.0", "blocks.0.0", "blocks.1.0"}), 6, 0.1),
    "transformer": Case(Transformer, frozenset({"encoder.layers.0.linear1", "encoder.layers.1.linear1"}), 6, 0.3),
}
METHODS: dict[str, Callable[[Case], Method]] = {
    "dhspg": lambda case: tikhon.DHSPG(remove=0.45, strength=5.0, epsilon=0.9, tolerance=0.05),
    "wgsef": lambda case: tikhon.GroupSparseEnvelope(strength=case.envelope, keep=0.5),
}


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    return images[:1000], torch.tensor(data.target)[:1000]


def too_wide(make: Callable[[], nn.Module]) -> nn.Module:
    """Every other unit begins twenty times smaller, so that a short training finds some to spare in every layer."""
    torch.manual_seed(0)
    model = make()
    parameters = dict(model.named_parameters())
    for group in units(model):
        for name in unit_parameters(group):
            if not group.fixed and name in parameters:
                parameters[name].data[1::2] *= 0.05
    return model


@dataclass(frozen=True)
class Pruned:
    before: tuple[int, int]
    after: tuple[int, int]
    expected: Tensor
    plan: dict[str, Tensor]
    model: nn.Module


@functools.cache
def pruned(name: str, network: str) -> Pruned:
    """Train, count parameters and multiply-adds, export, and count again."""
    case = NETWORKS[network]
    model, recipe = too_wide(case.make), tikhon.Recipe(METHODS[name](case))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    recipe.attach(optimizer, epochs=case.epochs)
    x, y = digits()
    for epoch in range(case.epochs):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - epoch / case.epochs)
        for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(50):
            optimizer.zero_grad()
            recipe.loss(x[rows], y[rows]).backward()
            optimizer.step()
        recipe.end_epoch()
    before = parameter_count(model), multiply_adds(model, x[:1])
    expected = outputs(model, x)
    exported = recipe.export()
    after = parameter_count(exported), multiply_adds(exported, x[:1])
    return Pruned(before, after, expected, recipe.methods[name].plan, exported.eval())


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_the_exported_network_is_smaller_and_answers_the_same(name: str, network: str) -> None:
    result, (x, y) = pruned(name, network), digits()
    found = outputs(result.model, x)
    torch.testing.assert_close(found, result.expected, rtol=1e-4, atol=1e-4)
    assert float((found.argmax(dim=1) == y).float().mean()) > 0.5, "it must have learned something to keep"
    for before, after in zip(result.before, result.after, strict=True):
        assert after < 0.95 * before
    assert set(result.plan) == NETWORKS[network].groups


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_a_fresh_network_takes_the_plan_and_the_state(name: str, network: str) -> None:
    result, (x, _) = pruned(name, network), digits()
    fresh = apply_plan(NETWORKS[network].make(), result.plan)
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(outputs(fresh, x), outputs(result.model, x))
    assert str(fresh) == str(result.model)


@pytest.mark.parametrize("name", METHODS)
def test_channels_that_an_addition_couples_leave_every_layer_that_makes_them(name: str) -> None:
    result = pruned(name, "residual cnn")
    stem, blocks, left = result.model.stem, result.model.blocks, len(result.plan["stem.0"])
    assert left < 12
    assert [layer.out_channels for layer in (stem[0], *(block[3] for block in blocks))] == [left] * 3
    assert [norm.num_features for norm in (stem[1], *(block[4] for block in blocks))] == [left] * 3
    assert [block[0].in_channels for block in blocks] == [left] * 2
    assert result.model.head.in_features == left


@pytest.mark.parametrize("name", METHODS)
def test_the_width_of_a_transformer_stays_and_its_feed_forward_parts_shrink(name: str) -> None:
    for layer in pruned(name, "transformer").model.encoder.layers:
        assert layer.linear1.in_features == layer.linear2.out_features == layer.self_attn.embed_dim == 16
        assert layer.linear1.out_features == layer.linear2.in_features < 48
