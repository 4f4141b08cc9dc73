"""Knowledge distillation against torch's divergence, with teachers that are modules and tables, and under mixing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.tensor([0, 1, 2, 2, 1, 0])
TABLE = 3.0 * torch.randn(6, 3, dtype=torch.float64, generator=GENERATOR)


def linear(seed, inputs=4):
    torch.manual_seed(seed)
    return nn.Linear(inputs, 3).double()


def attached(model, *methods, base=F.cross_entropy, samples=6):
    recipe = tikhon.Recipe(*methods, base=base, seed=5)
    recipe.prepare(model, samples=samples)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, steps=10)
    return recipe, optimizer


def expected(scores, taught, temperature, alpha, task):
    """By torch's KL divergence and the entropy of the teacher."""
    p = F.softmax(taught / temperature, 1)
    divergence = F.kl_div(F.log_softmax(scores / temperature, 1), p, reduction="batchmean")
    entropy = -(p * p.log()).sum(1).mean()
    return (1 - alpha) * task + alpha * temperature**2 * (divergence + entropy)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_module_and_table_give_the_formula(temperature, alpha):
    teacher, model = linear(1), linear(2)
    wanted = expected(model(X), teacher(X), temperature, alpha, F.cross_entropy(model(X), Y))
    for given in (teacher, teacher(X)):
        recipe, _ = attached(copy.deepcopy(model), tikhon.KnowledgeDistillation(given, temperature, alpha))
        loss = recipe.loss(X, Y, index=torch.arange(6))
        torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("total", [False, True])
def test_class_weights_sample_weights_and_ignored_labels(total):
    """The convex mix of two weighted means with the same weights."""
    weight, own = torch.tensor([1.0, 0.5, 3.0]).double(), torch.tensor([1.0, 2.0, 0.5, 1.0, 0.0, 4.0]).double()
    y = torch.where(torch.arange(6) == 2, -100, Y)
    model = linear(2)
    recipe, _ = attached(model, tikhon.KnowledgeDistillation(TABLE, 2.0, 0.7), base=nn.CrossEntropyLoss(weight=weight))
    mass = torch.where(y >= 0, weight[y.clamp_min(0)], 0.0) * own
    loss = recipe.loss(X, y, index=torch.arange(6), weight=own, total=float(mass.sum()) if total else None)
    scores = model(X)
    hard = F.cross_entropy(scores, Y, reduction="none")
    soft = -4.0 * (F.softmax(TABLE / 2, 1) * F.log_softmax(scores / 2, 1)).sum(1)
    torch.testing.assert_close(loss, (mass * (0.3 * hard + 0.7 * soft)).sum() / mass.sum(), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("kind", ["module", "table"])
def test_under_mixing(kind):
    """A module sees the mixed inputs; a table gives each part of a row its own scores."""
    rows, seen = torch.eye(6, dtype=torch.float64), []
    teacher, model = linear(1, inputs=6), linear(2, inputs=6)
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method = tikhon.KnowledgeDistillation(teacher if kind == "module" else TABLE, 2.0, 1.0)
    recipe, _ = attached(model, method, tikhon.MixUp(), tikhon.LabelSmoothing(0.3))
    loss = recipe.loss(rows, Y, index=torch.arange(6))
    mixed = seen[0]
    assert float(mixed.max(1).values.min()) < 0.99
    p = F.softmax(teacher(mixed) / 2, 1) if kind == "module" else mixed @ F.softmax(TABLE / 2, 1)
    wanted = -4.0 * (p * F.log_softmax(model(mixed) / 2, 1)).sum(1).mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=0.0)


def test_positions():
    torch.manual_seed(0)
    teacher, model = nn.Conv1d(4, 3, 1).double(), nn.Conv1d(4, 3, 1).double()
    x, y = torch.randn(2, 4, 5).double(), torch.randint(3, (2, 5))
    y[0, 2:] = -100
    recipe, _ = attached(model, tikhon.KnowledgeDistillation(teacher, 2.0, 0.7))
    kept = y >= 0
    scores, taught = model(x).movedim(1, -1)[kept], teacher(x).movedim(1, -1)[kept]
    wanted = expected(scores, taught, 2.0, 0.7, F.cross_entropy(scores, y[kept]))
    torch.testing.assert_close(recipe.loss(x, y), wanted, rtol=1e-12, atol=0.0)


def test_the_teacher_is_frozen_and_belongs_to_nobody():
    teacher = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    before = copy.deepcopy(teacher.state_dict())
    method = tikhon.KnowledgeDistillation(teacher)
    model = linear(2)
    recipe, optimizer = attached(model, method)
    for _ in range(3):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        optimizer.step()
    assert teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not list(method.parameters())
    assert not recipe.state_dict()["methods"]["kd"]
    assert sum(p.numel() for p in model.parameters()) == 15
    with torch.no_grad():
        copied, wanted = method._teacher[0](X), teacher.eval()(X)
    torch.testing.assert_close(copied, wanted, rtol=0.0, atol=0.0)


def test_the_teacher_goes_where_the_model_is():
    method = tikhon.KnowledgeDistillation(linear(1))
    method.to("meta")
    assert {one.device.type for one in method._teacher[0].parameters()} == {"meta"}


def test_wrong_input_is_refused():
    with pytest.raises(tikhon.TikhonError, match="teacher must be a module"):
        tikhon.KnowledgeDistillation("resnet50")
    with pytest.raises(tikhon.TikhonError, match="teacher must be a module"):
        tikhon.KnowledgeDistillation(torch.zeros(6, 3, dtype=torch.int64))
    with pytest.raises(tikhon.TikhonError, match="kd remembers every sample"):
        tikhon.Recipe(tikhon.KnowledgeDistillation(TABLE)).prepare(linear(0))
    recipe, _ = attached(linear(0), tikhon.KnowledgeDistillation(nn.Linear(4, 7).double()))
    with pytest.raises(tikhon.TikhonError, match=r"scores of shape \(6, 7\), the student \(6, 3\)"):
        recipe.loss(X, Y)
    with pytest.raises(tikhon.TikhonError, match="kd needs class scores"):
        tikhon.Recipe(tikhon.KnowledgeDistillation(linear(0)), base=F.mse_loss)
    with pytest.raises(tikhon.TikhonError, match="table has 6 rows"):
        attached(linear(0), tikhon.KnowledgeDistillation(TABLE), samples=7)[0].loss(X, Y, index=torch.arange(6) + 1)
