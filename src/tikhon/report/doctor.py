"""The doctor that watches a training: how good the model is after every epoch, and what is wrong with it in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.passes import unwrapped
from tikhon.core.recipe import Recipe
from tikhon.report.checks import CHECKS
from tikhon.report.checkup import examine
from tikhon.report.examined import Checkup
from tikhon.report.patient import Pair, Patient, kind_of, outputs_of, refuse_odd, some
from tikhon.report.readings import MOST
from tikhon.studies.experiment import accuracy, r_squared

Call = Callable[[nn.Module, Tensor], Tensor]


class Doctor:
    """Looks at the model after every epoch, in any loop, and examines it in the end.

    Nothing is done within a step. After an epoch the model goes over 2,000 samples at most of either set, in eval mode
    and without gradient; `history` keeps the loss and the metric (accuracy; of values R squared) on both.

    train, test: as `Patient` takes them; what is called test here may be validation data, and is what the findings are
    about; call: (model, inputs) -> (B, classes) logits or values, where `model(inputs)` gives something else.

    >>> inputs, labels = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    >>> doctor = Doctor(train=(inputs[:20], labels[:20]), test=(inputs[20:], labels[20:]))
    >>> score = doctor.end_epoch(nn.Linear(3, 2))
    >>> sorted(doctor.history)
    ['test_loss', 'test_metric', 'train_loss', 'train_metric']
    """

    def __init__(self, train: Pair, test: Pair, call: Call | None = None) -> None:
        for name, pair in (("train", train), ("test", test)):
            refuse_odd(name, pair)
        self.train, self.test, self.call = train, test, call
        self.history: dict[str, list[float]] = {}
        self._seen = {"train": _some(train, "train"), "test": _some(test, "test")}

    def end_epoch(self, trained: nn.Module | Recipe) -> float:
        """Measure what is trained, and return the metric on test data; more is better.

        trained: the model, compiled or wrapped as it may be, or the recipe that trains it, whose finished weights are
        measured (`recipe.deployed`). A model that has diverged is measured as it is: NaN. The returned score is one for
        `EarlyStopping.update`, and this method a metric for `tikhon.fit`.
        """
        if isinstance(trained, Recipe):
            with trained.deployed() as model:
                return self.end_epoch(model)
        seen = self._as_called(trained)
        for name, (inputs, labels) in self._seen.items():
            loss, metric = _measured(outputs_of(seen, inputs), labels.cpu())
            self.history.setdefault(f"{name}_loss", []).append(loss)
            self.history.setdefault(f"{name}_metric", []).append(metric)
        return self.history["test_metric"][-1]

    def examine(self, model: nn.Module, checks: Iterable[str] = tuple(CHECKS)) -> Checkup:
        """What is wrong with the trained model, its data and its history: `print(found)`, `found.findings`,
        `found.write("report.html")`. After `recipe.export()`, where a recipe trained it.

        Errors: TikhonError where model and data do not fit together, or outputs are not finite.
        """
        return examine(Patient(self._as_called(model), self.train, self.test, self.history), checks)

    def state_dict(self) -> dict[str, Any]:
        """The history, as plain values, for a checkpoint."""
        return {"history": {name: list(values) for name, values in self.history.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.history = {name: list(values) for name, values in state["history"].items()}

    def _as_called(self, model: nn.Module) -> nn.Module:
        bare = unwrapped(model)
        return bare if self.call is None else _Called(bare, self.call)


class _Called(nn.Module):
    """A model behind the function that calls it."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, inputs: Tensor) -> Tensor:
        return self.call(self.model, inputs)

    def _get_name(self) -> str:
        return str(self.model._get_name())


def _some(pair: Pair, name: str) -> Pair:
    place = some(len(pair[1]), MOST, f"history {name}")
    return pair[0][place.to(pair[0].device)], pair[1][place.to(pair[1].device)]


def _measured(outputs: Any, labels: Tensor) -> tuple[float, float]:
    """Loss and metric."""
    wide = outputs.double()
    if kind_of(labels) == "values":
        return float(F.mse_loss(wide, labels.double())), r_squared(wide, labels)
    return float(F.cross_entropy(wide, labels.long())), accuracy(wide, labels)
