"""Supervised dictionaries: the factored problem by another optimiser, both limits, and classes of little variance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from tikhon import SupervisedDictionary, TikhonError
from tikhon.solvers.structure.supervised_dictionary import joint_objective, left_singular_vectors

ROWS, WIDTH, CLASSES = 80, 12, 3


def sample():
    """Classes lie in the last directions, which have the least variance; covariates tell something as well."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    x *= torch.linspace(4.0, 0.5, WIDTH, dtype=torch.float64)
    c = torch.randn(ROWS, 1, generator=generator, dtype=torch.float64)
    truth = torch.zeros(WIDTH, CLASSES, dtype=torch.float64)
    truth[-3:] = 4.0 * torch.randn(3, CLASSES, generator=generator, dtype=torch.float64)
    scores = x @ truth + c * torch.tensor([2.0, 0.0, -2.0]) + torch.randn(ROWS, CLASSES, generator=generator)
    return x, scores.argmax(1), c


def factored(x, labels, c, model):
    """The objective as the paper writes it, in W, H, beta and Gamma, and the shapes of these."""
    rank, design = model.atoms, torch.cat([c, torch.ones(ROWS, 1, dtype=c.dtype)], dim=1)
    shapes = [(WIDTH, rank), (rank, ROWS), (rank, CLASSES), (design.shape[1], CLASSES)]

    def value(w, h, beta, gamma):
        a = w @ beta if model.variant == "filter" else h.T @ beta
        scores = (x @ a if model.variant == "filter" else a) + design @ gamma
        loss = F.cross_entropy(scores, labels, reduction="sum") + model.xi * (x.T - w @ h).square().sum()
        return loss + 0.5 * model.ridge * (a.square().sum() + gamma.square().sum())

    return value, shapes


def minimum(value, shapes, seed):
    """By L-BFGS from a random point."""
    sizes = [rows * columns for rows, columns in shapes]

    def descent(flat):
        leaf = torch.from_numpy(flat).requires_grad_()
        loss = value(*[part.reshape(shape) for part, shape in zip(leaf.split(sizes), shapes, strict=True)])
        return loss.item(), torch.autograd.grad(loss, leaf)[0].numpy()

    start = np.random.default_rng(seed).normal(size=sum(sizes))
    return minimize(descent, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).fun


@pytest.mark.parametrize("variant", ["filter", "feature"])
@pytest.mark.parametrize("xi", [0.03, 1.0])
def test_no_restart_of_the_factored_problem_gets_lower(variant, xi) -> None:
    x, labels, c = sample()
    model = SupervisedDictionary(4, xi=xi, variant=variant, tolerance=1e-12).fit(x, labels, c)
    value, shapes = factored(x, labels, c, model)
    w, beta, gamma = model.dictionary, model.regression, model.offsets
    h = w.T @ x.T if variant == "filter" else model.codes_.T
    parts = [one.clone().requires_grad_() for one in (w, h, beta, gamma)]
    loss = value(*parts)
    assert loss.item() == pytest.approx(model.objective, rel=1e-12)
    # nothing in the factors can be bettered: what is left is rounding
    assert max(float(one.abs().max()) for one in torch.autograd.grad(loss, parts)) < 1e-9 * (1.0 + model.objective)
    assert min(minimum(value, shapes, seed) for seed in range(2)) >= model.objective * (1.0 - 1e-7)
    assert model.converged
    u = w if variant == "filter" else h.T
    torch.testing.assert_close(u.T @ u, torch.eye(4, dtype=u.dtype))


def test_without_reconstruction_it_is_multinomial_regression() -> None:
    x, labels, c = sample()
    model = SupervisedDictionary(WIDTH, xi=0.0, ridge=0.5).fit(x, labels, c)
    inputs = torch.cat([x, c, torch.ones(ROWS, 1)], dim=1).numpy()
    other = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(inputs, labels.numpy())
    weights = torch.cat([model.dictionary @ model.regression, model.offsets])
    torch.testing.assert_close(weights.T, torch.from_numpy(other.coef_), rtol=1e-5, atol=1e-6)
    expected = torch.from_numpy(other.predict_proba(inputs))
    torch.testing.assert_close(model.scores(x, c).softmax(1), expected, rtol=1e-4, atol=1e-6)


def test_with_all_weight_on_reconstruction_atoms_are_principal_components() -> None:
    x, labels, _ = sample()
    model = SupervisedDictionary(3, xi=1e6).fit(x, labels)
    leading = torch.linalg.svd(x)[2][:3].T
    torch.testing.assert_close(model.dictionary @ model.dictionary.T, leading @ leading.T, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(model.reconstructed(x), x @ leading @ leading.T, rtol=0.0, atol=1e-4)


def test_atoms_turn_to_classes_of_little_variance() -> None:
    x, labels, c = sample()
    accuracy = {
        xi: float((SupervisedDictionary(3, xi=xi).fit(x, labels, c).predict(x, c) == labels).double().mean())
        for xi in (1e-3, 10.0)
    }
    assert accuracy[1e-3] > accuracy[10.0] + 0.2


def test_new_samples_are_read_as_the_fitted_ones() -> None:
    x, labels, c = sample()
    for variant in ("filter", "feature"):
        model = SupervisedDictionary(4, xi=0.1, variant=variant).fit(x.float(), labels, c)
        assert model.predict(x[:5], c[:5]).tolist() == model.predict(x, c)[:5].tolist()
        assert model.scores(x, c).dtype == torch.float64
        rebuilt = model.codes(model.reconstructed(x))
        torch.testing.assert_close(rebuilt, model.codes(x), rtol=1e-6, atol=1e-6)


def test_more_atoms_than_the_data_have_directions() -> None:
    x, labels, _ = sample()
    model = SupervisedDictionary(50, xi=1.0).fit(x, labels)
    torch.testing.assert_close(model.reconstructed(x), x)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"atoms": 0}, "atoms"),
        ({"atoms": 2, "xi": -1.0}, "xi"),
        ({"atoms": 2, "ridge": float("nan")}, "ridge"),
        ({"atoms": 2, "variant": "other"}, "variant"),
        ({"atoms": 2, "tolerance": 0.0}, "tolerance"),
    ],
)
def test_wrong_arguments(arguments, says) -> None:
    with pytest.raises(TikhonError, match=says):
        SupervisedDictionary(**arguments)


def test_wrong_data() -> None:
    x, labels, c = sample()
    model = SupervisedDictionary(2)
    for wrong in ((x, labels[1:]), (x[0], labels), (x, labels.float()), (x, labels * 0), (x, labels - 1)):
        with pytest.raises(TikhonError, match="abels"):
            model.fit(*wrong)
    with pytest.raises(TikhonError, match="NaN"):
        model.fit(x / 0.0, labels)
    with pytest.raises(TikhonError, match="Covariates"):
        model.fit(x, labels, c[1:])


def test_pure_functions_agree_with_their_definitions() -> None:
    x, labels, c = sample()
    u = left_singular_vectors(x.T, 2)
    assert left_singular_vectors(x.T, WIDTH + 1).shape == (WIDTH, WIDTH)
    a, gamma = torch.zeros(WIDTH, CLASSES).double(), torch.zeros(1, CLASSES).double()
    values = torch.linalg.svdvals(x)
    expected = ROWS * np.log(3) + 0.5 * float(values[2:].square().sum())
    assert joint_objective(a, gamma, u, x, labels, c, 0.5, 1.0, "filter").item() == pytest.approx(expected)
