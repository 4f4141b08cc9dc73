"""Sharpness against the whole Hessian by torch.autograd.functional, and against closed forms of linear regression."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.measures.sharpness import LossHessian, sharpness

GENERATOR = torch.Generator().manual_seed(3)
X = torch.randn(20, 4, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(3, (20,), generator=GENERATOR)
BATCHES = [(X[:13], LABELS[:13]), (X[13:], LABELS[13:])]


def network(seed: int = 0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    model(X)  # statistics that are not those of a fresh norm
    return model


def whole_hessian(model, loss):
    """By torch.autograd.functional, in eval mode, of all parameters as one vector."""
    model = model.eval()
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    values = [model.get_parameter(name).detach() for name in names]
    sizes = [one.numel() for one in values]

    def of(flat):
        parts = [part.view_as(one) for part, one in zip(flat.split(sizes), values, strict=True)]
        return loss(functional_call(model, dict(zip(names, parts, strict=True)), (X,)))

    return torch.autograd.functional.hessian(of, torch.cat([one.flatten() for one in values]))


def test_numbers_are_those_of_the_whole_hessian() -> None:
    model = network()
    found = sharpness(model, F.cross_entropy, BATCHES, count=3, steps=200, probes=400, tolerance=1e-9)
    exact = whole_hessian(model, lambda output: F.cross_entropy(output, LABELS))
    values = torch.linalg.eigvalsh(exact).flip(0)
    torch.testing.assert_close(found.eigenvalues, values[:3], rtol=1e-7, atol=0.0)
    assert found.largest == pytest.approx(float(values[0]))
    assert abs(found.trace - float(exact.trace())) < 3.0 * found.trace_error
    assert found.trace_error < 0.1 * float(values.abs().sum())
    assert found.frobenius == pytest.approx(float(exact.norm()), rel=0.05)
    mean = float(found.nodes @ found.weights) * LossHessian(model, F.cross_entropy, BATCHES).size
    assert abs(mean - float(exact.trace())) < 6.0 * 20.0 * found.trace_error  # one random vector against 400


def test_batches_of_unequal_mass_make_one_mean() -> None:
    model, weight = network(), torch.tensor([1.0, 5.0, 0.2]).double()
    labels = LABELS.clone()
    labels[:6] = -100
    base = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.0)
    hessian = LossHessian(model, base, [(X[:5], labels[:5]), (X[5:9], labels[5:9]), (X[9:], labels[9:])])
    found = hessian.products(torch.eye(hessian.size).double())
    exact = whole_hessian(model, lambda output: F.cross_entropy(output, labels, weight))
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (F.mse_loss, torch.ones(20, 3).double()),
        (nn.CrossEntropyLoss(label_smoothing=0.2), LABELS),
        (lambda output, target: (output - target).pow(4).sum(1), torch.ones(20, 3).double()),
    ],
)
def test_losses_are_those_that_a_recipe_takes(base, target) -> None:
    model = network()
    hessian = LossHessian(model, base, [(X, target)])
    exact = whole_hessian(model, lambda output: base(output, target).mean())
    torch.testing.assert_close(hessian.products(torch.eye(hessian.size).double()), exact)


def test_linear_regression_has_a_closed_form() -> None:
    found = sharpness(nn.Linear(4, 1, bias=False).double(), F.mse_loss, [(X, X[:, :1])], count=4, probes=2000)
    expected = 2.0 * X.T @ X / len(X)
    torch.testing.assert_close(found.eigenvalues, torch.linalg.eigvalsh(expected).flip(0))
    assert abs(found.trace - float(expected.trace())) < 3.0 * found.trace_error
    assert found.frobenius == pytest.approx(float(expected.norm()), rel=0.05)


def test_nothing_of_the_model_moves_and_the_seed_decides() -> None:
    model = network()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = (sharpness(model, F.cross_entropy, BATCHES, steps=3, probes=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.trace == again.trace != sharpness(model, F.cross_entropy, BATCHES, steps=3, probes=3, seed=1).trace
    assert torch.equal(first.nodes, again.nodes)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters())
    assert [one.requires_grad for one in model[0].parameters()] == [True, False]


class Sequences(nn.Module):
    """Tied embeddings, fused attention and a recurrence, with a parameter that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.attention = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.recurrence = nn.GRU(4, 4, batch_first=True)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self, tokens):
        return self.head(self.recurrence(self.attention(self.embedding(tokens)))[0].mean(1))


def test_tied_weights_attention_and_recurrences() -> None:
    torch.manual_seed(0)
    model = Sequences().double()
    tokens = torch.arange(15).reshape(3, 5) % 7
    hessian = LossHessian(model, F.cross_entropy, [(tokens, torch.tensor([0, 3, 6]))])
    assert hessian.size == sum(one.numel() for one in model.parameters())
    v = torch.randn(1, hessian.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradient(length):
        moved = {
            name: one + length * part.view_as(one)
            for (name, one), part in zip(
                model.named_parameters(), v[0].split([one.numel() for one in model.parameters()]), strict=True
            )
        }
        leaves = {name: one.detach().requires_grad_() for name, one in moved.items()}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            loss = F.cross_entropy(functional_call(model.eval(), leaves, (tokens,)), torch.tensor([0, 3, 6]))
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return torch.cat(
            [
                torch.zeros(one.numel()) if g is None else g.flatten()
                for g, one in zip(found, leaves.values(), strict=True)
            ]
        )

    difference = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    torch.testing.assert_close(hessian.products(v)[0], difference, rtol=1e-5, atol=1e-7)


def test_a_loss_without_curvature_is_flat() -> None:
    found = sharpness(nn.Linear(4, 2).double(), lambda output, target: output.sum(1), BATCHES, probes=2)
    assert (found.largest, found.trace, found.frobenius) == (0.0, 0.0, 0.0)


def test_the_drawing_has_a_unit_of_density_and_marks_the_largest() -> None:
    found = sharpness(network(), F.cross_entropy, BATCHES, count=2, probes=2)
    axes = found.plot()
    density, *marks = axes.get_lines()
    x, y = density.get_data()
    assert float(((y[1:] + y[:-1]) / 2 * (x[1:] - x[:-1])).sum()) == pytest.approx(1.0, abs=1e-3)
    assert [line.get_xdata()[0] for line in marks] == found.eigenvalues.tolist()
    plt.close(axes.figure)
    figure, given = plt.subplots()
    assert found.plot(given) is given
    plt.close(figure)


def test_wrong_input_is_refused() -> None:
    model = network()
    with pytest.raises(TikhonError, match="used up"):
        LossHessian(model, F.cross_entropy, iter(BATCHES))
    with pytest.raises(TikhonError, match="no samples"):
        sharpness(model, F.cross_entropy, [])
    with pytest.raises(TikhonError, match="2 probes"):
        sharpness(model, F.cross_entropy, BATCHES, probes=1)
    with pytest.raises(TikhonError, match="no parameter"):
        LossHessian(nn.ReLU(), F.cross_entropy, BATCHES)
    with pytest.raises(TikhonError, match="does not fit"):
        sharpness(model, F.mse_loss, [(X, X)], probes=2)
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(TikhonError, match="not finite"):
        sharpness(model, F.cross_entropy, BATCHES, probes=2)
    assert all(module.training for module in model)
