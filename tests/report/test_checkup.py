"""`tikhon doctor` on what is well and on what was broken on purpose: how often it finds that, and how often nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon as tk
from tikhon.core.errors import TikhonError
from tikhon.data import build_model, load_task
from tikhon.report.checks import CHECKS
from tikhon.report.checkup import Checkup, examine
from tikhon.report.patient import Patient
from tikhon.report.readings import Reading
from tikhon.studies.experiment import accuracy, r_squared

SEEDS = range(10, 13)
"""Set-ups and limits were chosen on seeds from 100 on."""
Broken = Callable[[int], Patient]


def patient(
    seed: int, source: str = "digits", model: str = "mlp", epochs: int = 15, rate: float = 0.05, **spoilt: object
) -> Patient:
    task = load_task(source, seed=seed, **spoilt)  # type: ignore[arg-type]
    pairs = [(split.inputs, split.target) for split in (task.train, task.test)]
    base = F.cross_entropy if task.kind == "classes" else F.mse_loss
    inputs, labels = pairs[1]
    metric = accuracy if task.kind == "classes" else r_squared
    trained, history = tk.fit(
        build_model(model, task, seed=seed),
        tk.Recipe(base=base, seed=seed),
        pairs[0],
        epochs=epochs,
        batch_size=64,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9),
        metrics={"test": lambda model: metric(model(inputs), labels)},
        seed=seed,
    )
    return Patient(trained, *pairs, history)


def exploded(seed: int) -> Patient:
    found = patient(seed)
    with torch.no_grad():
        found.model[-1].weight.mul_(50.0)
    return found


def dying(seed: int) -> Patient:
    found = patient(seed)
    with torch.no_grad():
        found.model[1].bias[torch.randperm(256)[:100]] = -100.0
    return found


def leaking(seed: int, blur: float = 0.0) -> Patient:
    found = patient(seed)
    inputs, labels = found.test[0].clone(), found.test[1].clone()
    inputs[:25], labels[:25] = found.train[0][:25] + blur * torch.randn(25, 1, 8, 8), found.train[1][:25]
    return replace(found, test=(inputs, labels))


def of_other_classes(seed: int) -> Patient:
    found = patient(seed, epochs=1)
    some = found.test[1] < 5
    return replace(found, test=(found.test[0][some], found.test[1][some]))


BROKEN: list[tuple[str, str, Broken]] = [
    *(
        (
            "wrong labels",
            f"{noise:.0%} wrong labels",
            lambda seed, noise=noise: patient(seed, epochs=1, label_noise=noise),
        )
        for noise in (0.1, 0.2, 0.4)
    ),
    ("over-fitting", "50 training samples", lambda seed: patient(seed, epochs=60, train_size=50)),
    ("imbalance", "50 : 1", lambda seed: patient(seed, epochs=1, imbalance=50.0)),
    (
        "over-confidence",
        "wrong labels learned by heart",
        lambda seed: patient(seed, epochs=150, train_size=200, label_noise=0.3),
    ),
    ("softmax collapse", "exploding logits", exploded),
    ("dead units", "four units of ten", dying),
    ("duplicates", "copies", leaking),
    ("duplicates", "copies with noise", lambda seed: leaking(seed, 0.005)),
    ("shift", "test images turned by 15 degrees", lambda seed: patient(seed, epochs=1, shift="rotation:15")),
    ("shift", "half of the classes in the test", of_other_classes),
    ("past its best", "wrong labels, for too long", lambda seed: patient(seed, epochs=60, label_noise=0.4)),
    ("unfinished", "a rate that is too low", lambda seed: patient(seed, epochs=20, rate=0.001)),
]
HEALTHY = [("digits", "mlp"), ("breast_cancer", "mlp"), ("wine", "mlp"), ("digits", "cnn")]


def names(found: Checkup) -> list[str]:
    return [one.name for one in found.findings]


def test_it_finds_what_is_broken_and_little_where_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    hits = {
        f"{check}: {how}, seed {seed}": check in names(examine(broken(seed), [check]))
        for check, how, broken in BROKEN
        for seed in SEEDS
    }
    alarms = {}
    for source, model in HEALTHY:
        for seed in SEEDS if model == "mlp" else SEEDS[:1]:
            found = examine(patient(seed, source, model))
            assert not found.not_made
            alarms |= {f"{check}: {source} {model}, seed {seed}": check in names(found) for check in CHECKS}
    missed = [case for case, hit in hits.items() if not hit]
    false = [case for case, alarm in alarms.items() if alarm]
    with capsys.disabled():
        print(f"\nhits {len(hits) - len(missed)} of {len(hits)}, missed {missed}")
        print(f"false alarms {len(false)} of {len(alarms)}, {false}")
    assert len(missed) <= 0.1 * len(hits)
    assert len(false) <= 0.05 * len(alarms)


def test_against_shift_are_methods_that_learn_from_test_inputs_without_labels() -> None:
    turned = patient(0, epochs=1, shift="rotation:30")
    (found,) = examine(turned, ["shift"]).findings
    assert [remedy.method for remedy in found.remedies] == ["mmd", "coral"]
    for remedy in found.remedies:
        made = eval(remedy.recipe, {"tk": tk, "torch": torch, "test_inputs": turned.test[0]})
        made.prepare(copy.deepcopy(turned.model), samples=len(turned.train[1]))


def test_findings_are_heaviest_first_with_methods_that_train_the_model_and_nothing_changes() -> None:
    broken = leaking(0)
    with torch.no_grad():
        broken.model[-1].weight.mul_(50.0)
    broken.model[0].train(False)
    broken.model[2].train(True)
    before = copy.deepcopy(broken.model.state_dict()), [one.training for one in broken.model.modules()]
    drawn = torch.get_rng_state()
    found = examine(broken)
    assert {"duplicates", "softmax collapse"} <= set(names(found))
    weights = [one.weight for one in found.findings]
    assert weights == sorted(weights, reverse=True)
    of = {one.name: one for one in found.findings}
    assert set(range(25)) <= set(of["duplicates"].reading.samples)
    assert of["duplicates"].remedies == ()  # the data are to be mended
    for remedy in of["softmax collapse"].remedies:
        made = eval(remedy.recipe, {"tk": tk, "torch": torch})
        made.prepare(copy.deepcopy(broken.model), samples=len(broken.train[1]))
    assert "perp_grad" in [remedy.method for remedy in of["softmax collapse"].remedies]
    assert [one.training for one in broken.model.modules()] == before[1]
    assert all(torch.equal(one, before[0][name]) for name, one in broken.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_labels_that_it_doubts_are_the_wrong_ones() -> None:
    task = load_task("digits", seed=0, label_noise=0.2)
    [found] = examine(patient(0, epochs=1, label_noise=0.2), ["wrong labels"]).findings
    doubted = torch.zeros(len(task.train), dtype=torch.bool)
    doubted[list(found.reading.samples)] = True
    wrong = task.train.target != task.clean_target
    assert (doubted & wrong).sum() >= 0.85 * doubted.sum()
    assert (doubted & wrong).sum() >= 0.85 * wrong.sum()
    assert found.reading.low <= 0.2 <= found.reading.high


def test_values_get_the_checks_that_need_no_classes() -> None:
    found = examine(patient(0, "diabetes", epochs=60))
    assert names(found) == ["over-fitting", "past its best"]
    assert found.findings[0].remedies
    assert all("base=torch.nn.functional.mse_loss" in one.recipe for one in found.findings[0].remedies)
    assert set(found.not_made) == {"wrong labels", "imbalance", "over-confidence", "softmax collapse"}
    assert set(found.not_made.values()) == {"The labels are values, not classes."}


def test_values_may_be_one_number_each() -> None:
    inputs = torch.randn(60, 3)
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    [one] = examine(
        Patient(model, (inputs[:40], inputs[:40, 0]), (inputs[40:], inputs[40:, 0])), ["over-fitting"]
    ).sound
    assert math.isfinite(one.reading.value)


def test_what_cannot_be_read_off_codes_is_said() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 2)

        def forward(self, codes: Tensor) -> Tensor:
            return self.table(codes).mean(1)

    codes, labels = torch.randint(9, (40, 6)), torch.randint(2, (40,))
    found = examine(Patient(Bag(), (codes, labels), (codes.flip(0), labels.flip(0))))
    assert names(found)[0] == "duplicates"
    assert found.findings[0].reading.value == 1.0
    assert set(found.not_made) == {"wrong labels", "dead units", "shift", "past its best", "unfinished"}


def test_a_class_without_samples_is_infinitely_rare_and_json_has_no_infinity() -> None:
    inputs, labels = torch.randn(200, 3), torch.arange(200) % 2
    found = examine(Patient(nn.Linear(3, 4), (inputs, labels), (torch.randn(60, 3), torch.arange(60) % 3)))
    [one] = [one for one in found.findings if one.name == "imbalance"]
    assert one.reading.value == math.inf
    assert one.reading.where == "class 2, 0 samples"
    assert one.as_dict()["value"] is None
    few = examine(Patient(nn.Linear(3, 4), (inputs[:20], labels[:20]), (inputs[20:40], labels[:20])))
    assert few.not_made["over-confidence"] == "There are 20 samples; an interval takes 30."


def test_weights_are_1_at_the_limit_and_0_where_all_is_well() -> None:
    for check in CHECKS.values():
        assert check.weight(Reading(check.limit, check.limit, check.limit)) == pytest.approx(1.0)
        assert check.weight(Reading(check.sound, check.sound, check.sound)) == 0.0
    assert CHECKS["imbalance"].weight(Reading(100.0, 100.0, 100.0)) == pytest.approx(2.0)


INPUTS, LABELS = torch.zeros(4, 3), torch.tensor([0, 1, 1, 0])
FINE = {"model": nn.Linear(3, 2), "train": (INPUTS, LABELS), "test": (INPUTS, LABELS)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "a model"}, "The model is str"),
        ({"train": INPUTS}, "train must be a pair of tensors"),
        ({"train": (INPUTS, LABELS[:2])}, "train must be inputs"),
        ({"test": (INPUTS[:, :2], LABELS)}, "test inputs torch.float32 (2,)"),
        ({"test": (INPUTS, LABELS.float())}, "must be of one kind"),
        ({"train": (INPUTS, LABELS > 0)}, "labels of train are torch.bool"),
        ({"train": (INPUTS, LABELS[:, None])}, "class indices"),
        ({"model": nn.Linear(4, 2)}, "The model cannot take training inputs (2, 3): RuntimeError"),
        ({"model": nn.Linear(3, 1)}, "need logits"),
        ({"test": (INPUTS, LABELS + 1)}, "The test labels range from 1 to 2, but the model has 2 classes"),
        ({"train": (INPUTS, LABELS.float()), "test": (INPUTS, LABELS.float())}, "values of shape (4,) need (2,)"),
        ({"model": nn.Flatten(0)}, "a tensor with a row for each"),
    ],
)
def test_what_does_not_fit_together_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(TikhonError) as error:
        Patient(**(FINE | wrong))  # type: ignore[arg-type]
    assert said in str(error.value)


def test_a_model_that_diverged_is_refused() -> None:
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, math.nan)
    with pytest.raises(TikhonError, match="NaN or infinity for 4 of 4 training samples"):
        examine(replace(Patient(**FINE), model=model))  # type: ignore[arg-type]
