"""scikit-learn: a classifier and a regressor that train a network with a recipe, for pipelines and grid searches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.combine import During
from tikhon.core.errors import TikhonError
from tikhon.core.fit import History, Metric, fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.data import Split, Task, build_model
from tikhon.data.seeds import torch_generator
from tikhon.data.splits import draw
from tikhon.report.checkup import Checkup, examine
from tikhon.report.patient import Patient
from tikhon.studies.arms import parse_arm

Methods = str | Method | During | Sequence[Method | During]
Network = str | Callable[[Task], nn.Module]


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share: everything but what a target and a score are."""

    def __init__(
        self,
        methods: Methods = "none",
        network: Network = "mlp",
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        early_stopping: bool = False,
        validation_fraction: float = 0.2,
        random_state: Any = 0,
    ) -> None:
        self.methods = methods
        self.network = network
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _train(self, inputs: Tensor, target: Tensor, classes: int | None, base: Any, metric: Any) -> None:
        """Set `model_`, `history_` and `criterion_`."""
        seed = int(check_random_state(self.random_state).randint(2**31))
        methods, keep_best = self._methods()
        train = validation = Split(inputs, target)
        if keep_best:
            size = max(1, classes or 1, round(self.validation_fraction * len(target)))
            held, rest = draw(target, size, torch_generator(seed, "validation split"))
            train, validation = train[rest], train[held]
        kind = "values" if classes is None else "classes"
        task = Task("the data", kind, classes, train, validation, validation, train.target, "")  # type: ignore[arg-type]
        model = build_model(self.network, task, seed=seed) if isinstance(self.network, str) else self.network(task)
        device = next(model.parameters()).device
        recipe = Recipe(*methods, base=base, seed=seed)
        held_inputs, held_target = validation.inputs.to(device), validation.target.to(device)
        metrics: dict[str, Metric] = {"validation": lambda model: float(metric(model(held_inputs), held_target))}
        self.model_, self.history_ = fit(
            model,
            recipe,
            (train.inputs.to(device), train.target.to(device)),
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=self.learning_rate),
            metrics=metrics if keep_best else None,
            keep_best="validation" if keep_best else None,
            seed=seed,
        )
        self.model_.eval()
        self.criterion_ = recipe.criterion
        self.n_iter_ = len(self.history_.train_loss)

    def _methods(self) -> tuple[list[Method | During], bool]:
        """Fresh methods, since training changes them, and whether the best epoch is kept."""
        if isinstance(self.methods, str):
            arm = parse_arm(self.methods)
            return arm.methods(), arm.early_stopping or self.early_stopping
        given = [self.methods] if isinstance(self.methods, (Method, During)) else list(self.methods)
        return copy.deepcopy(given), self.early_stopping

    def examine(self, X: Any, y: Any, X_test: Any, y_test: Any) -> Checkup:
        """What is wrong with the fitted network and these data, as `tikhon doctor` says it: `print(found)`,
        `found.findings`, `found.write("report.html")`.

        X, y: what it was fitted on; X_test, y_test: what it has not seen. Of its history there is the training loss
        and, with early stopping, the validation score.
        """
        train, test = ((self._rows(inputs), self._target(target)) for inputs, target in ((X, y), (X_test, y_test)))
        return examine(Patient(self.model_, train, test, self.history_))

    def _target(self, y: Any) -> Tensor:
        raise NotImplementedError

    def _rows(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return torch.from_numpy(validate_data(self, X, reset=False, dtype=np.float32, allow_nd=True))

    def _output(self, X: Any) -> Tensor:
        rows = self._rows(X)
        with torch.no_grad():
            output: Tensor = self.model_(rows.to(next(self.model_.parameters()).device))
        return output.cpu()


class TikhonClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A network trained with a recipe, as a scikit-learn classifier.

    methods: as on the command line, "elr(strength=3)+mixup", so that a grid search can list them, or methods; network:
    "mlp" or "cnn", or a function that makes an `nn.Module` for a task (`tikhon.data.Task`: its input shape, its number
    of outputs); epochs, batch_size; learning_rate: of Adam; early_stopping: keep the epoch that was best on a
    `validation_fraction` of the samples; random_state: an integer or a `RandomState`. X: (N, ...) as floating-point
    numbers, tables or images; y: (N,), labels of any type. Fitted: `model_` (plain torch), `classes_`, `history_`.

    >>> import numpy as np
    >>> X = np.concatenate([np.zeros((20, 2)), np.ones((20, 2))])
    >>> TikhonClassifier("mixup", epochs=5).fit(X, ["no"] * 20 + ["yes"] * 20).predict([[0.9, 1.0]])
    array(['yes'], dtype='<U3')
    """

    classes_: np.ndarray[Any, Any]
    model_: nn.Module
    history_: History

    def fit(self, X: Any, y: Any) -> TikhonClassifier:
        rows, labels = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        target = torch.from_numpy(codes.astype(np.int64))
        self._train(torch.from_numpy(rows), target, len(self.classes_), F.cross_entropy, _accuracy)
        return self

    def _target(self, y: Any) -> Tensor:
        strange = set(np.unique(y)) - set(self.classes_)
        if strange:
            raise TikhonError(f"It was fitted without the labels {', '.join(map(repr, sorted(strange)))}.")
        return torch.from_numpy(np.searchsorted(self.classes_, np.asarray(y)).astype(np.int64))

    def predict_proba(self, X: Any) -> np.ndarray[Any, Any]:
        """Class probabilities (N, K), by the loss that the recipe trained with; columns as in `classes_`."""
        output = self._output(X)
        probabilities: np.ndarray[Any, Any] = self.criterion_.probabilities(output).numpy()
        return probabilities

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """The likeliest label of each sample, (N,)."""
        codes = self._output(X).argmax(1).numpy()
        predicted: np.ndarray[Any, Any] = self.classes_[codes]
        return predicted


class TikhonRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A network trained with a recipe on squared error, as a scikit-learn regressor.

    Arguments as `TikhonClassifier`'s. y: (N,) or (N, D). Put `StandardScaler` before it, and around it a
    `TransformedTargetRegressor` where targets are not of unit scale.

    >>> import numpy as np
    >>> X = np.linspace(-1.0, 1.0, 40)[:, None]
    >>> found = TikhonRegressor("l2(strength=0.0001)", epochs=100).fit(X, 2.0 * X[:, 0])
    >>> found.score(X, 2.0 * X[:, 0]) > 0.99
    True
    """

    model_: nn.Module
    history_: History

    def fit(self, X: Any, y: Any) -> TikhonRegressor:
        rows, values = validate_data(self, X, y, dtype=np.float32, allow_nd=True, multi_output=True, y_numeric=True)
        target = torch.from_numpy(values.astype(np.float32))
        self._train(torch.from_numpy(rows), target, None, F.mse_loss, lambda output, held: -F.mse_loss(output, held))
        return self

    def _target(self, y: Any) -> Tensor:
        return torch.from_numpy(np.asarray(y, dtype=np.float32))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """The predicted values, (N,) or (N, D)."""
        predicted: np.ndarray[Any, Any] = self._output(X).double().numpy()
        return predicted


def _accuracy(output: Tensor, labels: Tensor) -> Tensor:
    return (output.argmax(1) == labels).double().mean()
