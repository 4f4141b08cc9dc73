"""Models of torchvision and timm as they come: trained with recipes, and plain models of these packages again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon as tk
from tikhon.core.pruning import apply_plan, parameter_count
from tikhon.core.terms import Term
from tikhon.methods.weights.orth_conv import orthogonality

HERE = "`make vision` tests this in an environment of its own"
torchvision = pytest.importorskip("torchvision", reason=HERE)
timm = pytest.importorskip("timm", reason=HERE)

CLASSES, BATCH = 4, 16
BLOCKS = {"resnet18": "layer2", "resnet10t": "layer2", "vit": "blocks.1", "convnext": "stages.0"}
CONVOLUTIONAL = ["resnet18", "resnet10t"]
SURGERY = [
    tk.WeightCompander,
    tk.GhostBatchNorm,
    tk.NestedDropout,
    tk.MultiSampleDropout,
    lambda: tk.PiSSA(rank=2),
]
PRUNING = [lambda: tk.GroupSparseEnvelope(8.0, keep=0.5), lambda: tk.DHSPG(0.5, strength=tk.linear(0.0, 500.0))]


def build(family: str) -> nn.Module:
    """Random weights, the same at every call."""
    torch.manual_seed(0)
    if family == "resnet18":
        return torchvision.models.resnet18(num_classes=CLASSES)
    if family == "vit":
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "depth": 2}
        return timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, drop_path_rate=0.1, **sizes)
    name = {"convnext": "test_convnext"}.get(family, family)
    return timm.create_model(name, num_classes=CLASSES)


def data() -> tuple[Tensor, Tensor]:
    """Images (16, 3, 32, 32) of four classes that differ in colour."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(BATCH) % CLASSES
    colours = torch.randn(CLASSES, 3, 1, 1, generator=generator)
    return colours[labels] + 0.3 * torch.randn(BATCH, 3, 32, 32, generator=generator), labels


def trained(family: str, *methods: tk.Method, steps: int = 3, rate: float = 0.05, **wrapped: Any) -> tk.Recipe:
    recipe = tk.Recipe(*methods)
    model = recipe.prepare(build(family), samples=BATCH)
    called = torch.compile(model, **wrapped) if wrapped else None
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    recipe.attach(optimizer, model=called, steps=steps)
    torch.manual_seed(1)
    inputs, labels = data()
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(inputs, labels, index=torch.arange(BATCH)).backward()
        optimizer.step()
    assert recipe.step == steps
    return recipe


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(data()[0])
    return found


class Pulls(tk.Method):
    """Pulls what a block puts out towards zero, in the pass of the batch and in one of its own."""

    card = tk.SAM.card

    def __init__(self, at: str, strength: float = 1.0) -> None:
        super().__init__()
        self.at, self.strength = at, strength

    def taps(self, model: nn.Module) -> list[str]:
        return [self.at]

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        _, again = step.forward_with_taps(step.inputs.flip(3))
        features = step.tap(self.at).output, again[self.at].output
        return {self.key: Term(sum(one.square().flatten(1).mean(1) for one in features), self.strength)}


@pytest.mark.parametrize("family", BLOCKS)
def test_a_recipe_trains_it_and_leaves_the_packages_own_model(family) -> None:
    methods = (
        tk.MixUp(),
        tk.LabelSmoothing(0.1),
        tk.ELR(),
        tk.L2(1e-3),
        tk.SAM(0.05),
        tk.EMA(0.5),
        Pulls(BLOCKS[family]),
    )
    recipe = trained(family, *methods)
    assert recipe.model is not None
    names = [name for name, _ in build(family).named_parameters()]
    assert [one.name for one in tk.select(recipe.model, "all")] == names
    with recipe.deployed() as deployed:
        expected = outputs(deployed)
    finished = recipe.export()
    assert torch.equal(outputs(finished), expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in finished.modules())
    fresh = build(family)
    before = outputs(fresh)
    fresh.load_state_dict(finished.state_dict())
    assert torch.equal(outputs(fresh), expected)
    assert not torch.allclose(before, expected)


@pytest.mark.parametrize("family", BLOCKS)
def test_a_tap_sees_the_block_that_it_names(family) -> None:
    seen: list[Tensor] = []

    class Looks(Pulls):
        def terms(self, output: Tensor, target: Any, step: Any) -> Any:
            seen.append(step.tap(self.at).output.detach())
            return {}

    trained(family, Looks(BLOCKS[family]), steps=1)
    model = build(family)
    model.get_submodule(BLOCKS[family]).register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.manual_seed(1)
    model(data()[0])
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("family", BLOCKS)
def test_a_second_pass_repeats_the_first_where_nothing_is_perturbed(family) -> None:
    class Twice(tk.Method):
        card = tk.SAM.card

        def around(self, inner: Any, step: Any) -> Tensor:
            first, second = inner(), inner()
            assert torch.equal(first, second)  # the same drop path, and statistics of the batch
            return first

    assert_same(trained(family, Twice()).export(), trained(family).export())


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("family", BLOCKS)
@pytest.mark.parametrize("method", SURGERY, ids=lambda make: type(make()).__name__)
def test_surgery_is_undone_at_export(family, method) -> None:
    if isinstance(method(), tk.GhostBatchNorm) and family not in CONVOLUTIONAL:
        pytest.skip("it has no batch norm")
    recipe = trained(family, method())
    with recipe.deployed() as deployed:
        expected = outputs(deployed)
    finished = recipe.export()
    torch.testing.assert_close(outputs(finished), expected, rtol=1e-4, atol=1e-5)
    fresh = build(family)
    fresh.load_state_dict(finished.state_dict())
    torch.testing.assert_close(outputs(fresh), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["resnet18", "resnet10t", "vit"])
@pytest.mark.parametrize("method", PRUNING, ids=["envelope", "dhspg"])
def test_a_pruned_model_is_smaller_and_answers_the_same(family, method) -> None:
    pruning = method()
    recipe = trained(family, pruning, steps=12)
    assert recipe.model is not None
    expected = outputs(recipe.model)
    finished = recipe.export()
    assert parameter_count(finished) < 0.9 * parameter_count(build(family))
    torch.testing.assert_close(outputs(finished), expected, rtol=1e-3, atol=1e-4)
    fresh = apply_plan(build(family), pruning.plan)
    fresh.load_state_dict(finished.state_dict())
    assert torch.equal(outputs(fresh), outputs(finished))


def test_orthogonal_convolutions() -> None:
    def distance(model: nn.Module) -> float:
        kernels = [module for module in model.layer1.modules() if isinstance(module, nn.Conv2d)]
        return sum(float(orthogonality(one.weight.detach(), one.stride)) for one in kernels)

    method = tk.OrthogonalConv(1e-2, where="layer1")
    plain, regular = (trained("resnet18", *methods).export() for methods in ((), (method,)))
    assert distance(regular) < 0.9 * distance(plain)


@pytest.mark.parametrize("family", ["resnet18", "vit"])
def test_compiled_and_narrow_it_trains_the_same_weights(family) -> None:
    methods = tk.MixUp, tk.ELR, lambda: tk.SAM(0.05), lambda: tk.EMA(0.5), lambda: Pulls(BLOCKS[family])
    with torch.autocast("cpu", torch.bfloat16):
        torch._dynamo.reset()
        compiled = trained(family, *(make() for make in methods), backend="eager", fullgraph=True)
        plain = trained(family, *(make() for make in methods))
    assert_same(compiled.export(), plain.export())


def test_the_plain_loss_is_the_packages_own() -> None:
    recipe = tk.Recipe()
    model = recipe.prepare(build("resnet18")).eval()
    inputs, labels = data()
    assert torch.equal(recipe.loss(inputs, labels), F.cross_entropy(model(inputs), labels))
