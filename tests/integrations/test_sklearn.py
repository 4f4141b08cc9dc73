"""scikit-learn: its own checks, the plain loop's weights, pipelines, grid searches, and wrong input."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.integrations.sklearn import TikhonClassifier, TikhonRegressor


def checks():
    for estimator in (TikhonClassifier("mixup", epochs=30), TikhonRegressor("l2(strength=0.0001)", epochs=30)):
        for one, check in estimator_checks_generator(estimator, legacy=True):
            yield pytest.param(one, check, id=f"{type(one).__name__}-{check.func.__name__}")


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator, check) -> None:
    check(estimator)


def digits(samples=400):
    X, y = load_digits(return_X_y=True)
    return X[:samples], y[:samples]


def network(task):
    return nn.Sequential(nn.Linear(*task.input_shape, 16), nn.ReLU(), nn.Linear(16, task.outputs))


def test_the_same_weights_as_the_plain_loop() -> None:
    X, y = digits()
    torch.manual_seed(0)
    found = TikhonClassifier([tikhon.ELR(), tikhon.MixUp()], network, epochs=2, random_state=3).fit(X, y)
    seed = int(np.random.RandomState(3).randint(2**31))
    torch.manual_seed(0)
    model, _ = tikhon.fit(
        nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
        tikhon.Recipe(tikhon.ELR(), tikhon.MixUp(), seed=seed),
        (torch.tensor(X, dtype=torch.float32), torch.tensor(y)),
        epochs=2,
        batch_size=64,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        seed=seed,
    )
    for one, other in zip(found.model_.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_pipeline_in_a_grid_search_over_methods() -> None:
    X, y = digits()
    names = np.array(list("abcdefghij"))[y]
    pipeline = make_pipeline(StandardScaler(), TikhonClassifier(network=network, epochs=15))
    grid = {"tikhonclassifier__methods": ["none", "mixup", [tikhon.LabelSmoothing(0.1)]]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, names)
    assert search.best_score_ > 0.8
    assert len(set(search.cv_results_["mean_test_score"])) == 3  # each did something of its own
    assert set(search.predict(X)) <= set("abcdefghij")


def test_methods_given_are_left_as_they_were() -> None:
    X, y = digits(100)
    method = tikhon.ELR()
    estimator = TikhonClassifier(method, network, epochs=1)
    once, again = (clone(estimator).fit(X, y).predict_proba(X) for _ in range(2))
    assert once.shape == (100, 10)
    np.testing.assert_allclose(once.sum(1), 1.0, rtol=1e-5)
    assert method.state_dict().keys() == tikhon.ELR().state_dict().keys()
    assert again.shape == once.shape


def test_probabilities_are_of_the_loss_that_was_trained_with() -> None:
    X, y = digits(100)
    found = TikhonClassifier("stablemax", epochs=1).fit(X, y)
    scores = found.model_(torch.tensor(X, dtype=torch.float32))
    assert not np.allclose(found.predict_proba(X), F.softmax(scores, dim=1).detach().numpy(), atol=1e-3)
    np.testing.assert_array_equal(found.predict_proba(X).argmax(1), found.predict(X))


def test_images_and_early_stopping() -> None:
    X, y = digits()
    found = TikhonClassifier("none", "cnn", epochs=3, early_stopping=True).fit(X.reshape(-1, 1, 8, 8) / 16.0, y)
    assert len(found.history_.metrics["validation"]) == 3
    assert found.history_.best_epoch == int(np.argmax(found.history_.metrics["validation"]))


def test_a_fitted_estimator_is_pickled_without_tikhons_training_state() -> None:
    X, y = digits(100)
    found = TikhonClassifier("elr+mixup", epochs=1).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).predict_proba(X), found.predict_proba(X))


def test_several_values() -> None:
    X = np.random.default_rng(0).normal(size=(200, 3))
    found = TikhonRegressor(epochs=60).fit(X, X @ np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]]))
    assert found.predict(X).shape == (200, 2)
    assert found.score(X, X @ np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]])) > 0.9


def test_what_cannot_be_is_refused() -> None:
    X, y = digits(100)
    with pytest.raises(TikhonError, match="'mixup'"):
        TikhonClassifier("mixupp").fit(X, y)
    with pytest.raises(TikhonError, match="epochs"):
        TikhonClassifier(epochs=0).fit(X, y)
    with pytest.raises(TikhonError, match="cnn needs images"):
        TikhonClassifier(network="cnn").fit(X, y)


def test_a_fitted_estimator_is_examined_with_its_own_labels_and_history() -> None:
    X, y = digits()
    names = np.array([f"digit {one}" for one in range(10)])[y]
    found = TikhonClassifier("none", epochs=12, early_stopping=True).fit(X[:300], names[:300])
    checkup = found.examine(X[:300], names[:300], X[280:], names[280:])
    assert checkup.findings[0].name == "duplicates"
    assert checkup.findings[0].reading.value == pytest.approx(20 / 120)
    assert {"train_loss", "validation_metric"} <= set(checkup.drawn.curves)
    with pytest.raises(TikhonError, match="fitted without the labels"):
        found.examine(X[:300], names[:300], X[300:], np.full(100, "letter"))
    regressor = TikhonRegressor("none", epochs=5).fit(X[:300], y[:300].astype(float))
    assert "over-fitting" not in regressor.examine(X[:300], y[:300], X[300:], y[300:]).not_made
