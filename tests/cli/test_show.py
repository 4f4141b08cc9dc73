"""`tikhon show`."""

import json

import pytest
import torch
from commands import refused, run

from tikhon.core.catalogue import catalogue, methods
from tikhon.data import build_model, load_task


@pytest.mark.usefixtures("evidence_folder")
def test_it_says_what_the_card_the_constructor_and_the_evidence_say() -> None:
    said = " ".join(run("show", "elr").stdout.split())
    for part in (
        "Early-Learning Regularization Prevents Memorization of Noisy Labels",
        "Liu, Niles-Weed, Razavian, Fernandez-Granda, 2020, arXiv 2007.00151",
        "noisy-labels some training labels are wrong",
        "claim Prevents the memorisation of false labels.",
        "strength 3.0 Strength weight of the term, at least 0;",
        "momentum 0.7 Strength b, in [0, 1)",
        "remember Write per-sample state.",
        "needs classes, ids",
        "recipe = tk.Recipe(tk.ELR())",
        "replayed in part (3 seeds; 1 candidate an arm, chosen by validation)",
        "elr vs none: metric higher +0.200 [0.175, 0.225] yes 1.50x",  # 0.2 -/+ t(2; 0.975) 0.01 / sqrt(3)
        "elr vs none: gap lower 0.000 [0.000, 0.000] no",
        "elr: recipe elr(strength=3.0)",
    ):
        assert part in said


def test_the_class_is_as_good_a_name_as_the_file() -> None:
    assert run("show", "ELR").stdout == run("show", "elr").stdout


def test_without_evidence_it_says_how_to_get_it(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tikhon.studies.evidence.bundled", lambda: tmp_path)
    assert "Not yet proved: tikhon prove elr" in run("show", "elr").stdout


def test_exemptions_come_with_their_reasons() -> None:
    said = " ".join(run("show", "sam").stdout.split())
    assert "exempt from accumulation every micro-batch has a perturbation of its own" in said


@pytest.mark.usefixtures("evidence_folder")
def test_json_holds_everything() -> None:
    known = json.loads(run("show", "elr", "--json").stdout)
    assert known["arguments"][1] == {
        "name": "momentum",
        "type": "Strength",
        "default": "0.7",
        "about": "b, in [0, 1)",
    }
    assert [one["moment"] for one in known["moments"]] == ["remember", "terms"]
    assert known["needs"] == ["classes", "ids"]
    assert known["evidence"]["measures"]["elr"]["metric"] == [0.90, 0.93, 0.93]
    assert known["evidence"]["chosen"]["elr"] == {"recipe": "elr(strength=3.0)"}


CLASSIFYING = [name for name, listing in methods().items() if listing.classifies]


@pytest.mark.parametrize("name", sorted(set(catalogue()) - set(CLASSIFYING)))
def test_what_does_not_classify_shows_the_example_of_its_docstring(name: str) -> None:
    example = json.loads(run("show", name, "--json").stdout)["example"]
    assert example in run("show", name).stdout, "an example that was wrapped or cut cannot be pasted"
    assert "tikhon." in example
    exec(example, {})


@pytest.mark.parametrize("name", CLASSIFYING)
def test_every_method_has_a_page_and_its_example_runs(name: str) -> None:
    page = run("show", name).stdout
    task = load_task("digits", seed=0, train_size=150)
    loop = json.loads(run("show", name, "--json").stdout)["example"]
    assert loop in page, "an example that was wrapped or cut cannot be pasted"
    known = {
        "model": build_model("cnn", task, seed=0),
        "train": torch.utils.data.TensorDataset(task.train.inputs, task.train.target),
        "epochs": 1,
    }
    before = [weight.clone() for weight in known["model"].parameters()]
    exec(loop, known)
    assert known["recipe"].step == 2
    assert any(not torch.equal(old, new) for old, new in zip(before, known["model"].parameters(), strict=False))


def test_an_unknown_name_gets_near_misses() -> None:
    assert "Did you mean" in refused("show", "label_smoothin")
