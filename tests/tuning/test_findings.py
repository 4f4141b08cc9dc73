"""What is the matter: measured without the test data, and named by rules."""

from __future__ import annotations

import pytest
import torch

from tikhon.studies.experiment import cell
from tikhon.tuning.findings import findings, measure, suspected_noise

CALM = {
    "label_noise": 0.01,
    "gap": 0.01,
    "calibration_error": 0.01,
    "imbalance": 1.2,
    "train_metric": 0.9,
    "validation_metric": 0.89,
}


def test_suspected_labels_by_hand() -> None:
    """Predictions agree in four of five, and each with three of the labels."""
    one, other = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 1, 2, 0, 2])
    assert suspected_noise(one, other, torch.tensor([0, 1, 2, 1, 0])) == pytest.approx(1 - 3 / 4)
    assert suspected_noise(one, one, one) == 0.0
    assert suspected_noise(one, 2 - one, one) == 0.0
    assert suspected_noise(one, (one + 1) % 3, one) == 0.0


@pytest.mark.parametrize("accuracy", [0.5, 0.95])
def test_a_hard_task_is_not_taken_for_wrong_labels(accuracy: float) -> None:
    """Networks that are right independently, labels of which 30% are wrong, 20 classes."""
    truth = torch.randint(0, 20, (40_000,))

    def as_seen(right: float) -> torch.Tensor:
        wrong = (truth + torch.randint(1, 20, truth.shape)) % 20
        return torch.where(torch.rand(truth.shape) < right, truth, wrong)

    one, other = as_seen(accuracy), as_seen(accuracy)
    shares = [suspected_noise(one, other, labels) for labels in (truth, as_seen(0.7))]
    assert shares[0] == 0.0
    assert (shares[1] > 0.2) == (accuracy > 0.9)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"label_noise": 0.05}, "noisy-labels"),
        ({"gap": 0.05}, "overfitting"),
        ({"calibration_error": 0.05}, "calibration"),
        ({"imbalance": 5.0}, "imbalance"),
    ],
)
def test_rules(changed: dict, problem: str) -> None:
    assert findings(CALM) == []
    assert [one.problem for one in findings({**CALM, **changed})] == [problem]


def test_values_have_no_labels_to_doubt() -> None:
    one = cell(task={"source": "diabetes", "train_size": 60}, model="mlp", arm="none", seed=0, epochs=3)
    measured = measure(one, lambda _: None)
    assert (measured["classes"], measured["label_noise"], measured["calibration_error"]) == (None, None, None)
    assert {one.problem for one in findings({**measured, "gap": 0.5})} == {"overfitting"}


def test_wrong_labels_are_noticed_and_test_data_are_not_looked_at(monkeypatch) -> None:
    shares, fractions = {}, []
    for noise in (0.0, 0.4):
        task = {"source": "digits", "train_size": 300, "label_noise": noise}
        one = cell(task=task, model="mlp", arm="none", seed=0, epochs=20)
        fractions.clear()
        measured = measure(one, fractions.append)
        shares[noise] = measured["label_noise"]
        assert measured["gap"] == measured["train_metric"] - measured["validation_metric"]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        shifted = measure({**one, "task": {**task, "shift": "noise:5"}}, lambda _: None)  # of test inputs alone
        assert {**shifted, "seconds": 0} == {**measured, "seconds": 0}
    assert shares[0.0] < 0.05
    assert 0.15 < shares[0.4] < 0.6
    assert (measured["samples"], measured["inputs"], measured["classes"]) == (300, "image", 10)
