"""Finished runs examined: what is stored of them is read right, and what cannot be made is said."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tikhon as tk
from tikhon.core.errors import TikhonError
from tikhon.data import load_task
from tikhon.report import readings
from tikhon.report.checkup import Checkup
from tikhon.report.finished import NO_MODEL, examine_run
from tikhon.report.readings import Reading
from tikhon.studies.experiment import cell, run_cell
from tikhon.studies.store import Store

TASK = {"source": "wine", "label_noise": 0.3}


def one_cell(seed: int = 0, arm: str = "none", epochs: int = 12, **other: object) -> dict[str, object]:
    return cell(task=TASK | other, model="mlp", arm=arm, seed=seed, epochs=epochs)


def store(folder: Path, *cells: dict[str, object]) -> Path:
    with Store(folder) as stored:
        for one in cells:
            stored.put(one, run_cell(one, lambda _: None))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = [one_cell(seed, arm) for seed in range(3) for arm in ("none", "early_stopping")]
    return store(tmp_path_factory.mktemp("runs") / "wine", *cells)


def by_name(found: Checkup) -> dict[str, Reading]:
    return {one.name: one.reading for one in (*found.findings, *found.sound)}


def test_seeds_give_intervals_and_the_data_are_loaded_again(folder: Path) -> None:
    before = (folder / "results.db").read_bytes()
    found = examine_run(folder)
    assert (folder / "results.db").read_bytes() == before
    assert found.not_made == {"softmax collapse": NO_MODEL, "dead units": NO_MODEL}
    read = by_name(found)
    with Store(folder) as stored:
        results = [stored.get(one_cell(seed)) for seed in range(3)]
    gaps = [one["gap"] for one in results]
    assert read["over-fitting"].value == pytest.approx(sum(gaps) / 3)
    assert read["over-fitting"].low < min(gaps) + 1e-9
    errors = [
        sum(n * (c - a) for c, a, n in zip(one["confidence"], one["accuracy"], one["count"], strict=True) if n)
        / sum(one["count"])
        for one in (result["reliability"] for result in results)
    ]
    assert read["over-confidence"].value == pytest.approx(sum(errors) / 3, abs=1e-6)
    task = load_task(**TASK, seed=0)

    class Same:
        train, test, kind = (task.train.inputs, task.train.target), (task.test.inputs, task.test.target), task.kind

    assert read["wrong labels"] == readings.wrong_labels(Same())
    assert read["shift"] == readings.shift(Same())
    assert len(found.drawn.curves["test_metric"]) == 3
    assert found.about["arm"] == "none"
    assert [one.name for one in found.findings][:1] == ["wrong labels"]
    assert found.findings[0].remedies


def test_an_arm_is_chosen_and_early_stopping_is_seen_as_it_was_delivered(folder: Path) -> None:
    found = examine_run(folder / "results.db", "early_stopping")
    for one in found.drawn.curves["validation_metric"]:
        assert list(one) == sorted(one)
    with pytest.raises(TikhonError, match="unknown arm 'elr'"):
        examine_run(folder, "elr")


def test_one_seed_has_the_interval_of_its_samples(tmp_path: Path) -> None:
    read = by_name(examine_run(store(tmp_path, one_cell())))
    with Store(tmp_path) as stored:
        result = stored.get(one_cell())
    assert read["over-fitting"].value == pytest.approx(result["gap"], abs=1e-6)
    assert read["over-fitting"].low < result["gap"] < read["over-fitting"].high
    assert read["over-confidence"].low < read["over-confidence"].value < read["over-confidence"].high


def test_several_trainings_of_an_arm_are_not_mixed_and_diverged_ones_are_said(tmp_path: Path) -> None:
    store(tmp_path / "two", one_cell(), one_cell(epochs=13))
    with pytest.raises(TikhonError, match="holds 2 trainings of none that differ in epochs"):
        examine_run(tmp_path / "two")
    with Store(tmp_path / "broken") as stored:
        stored.put(one_cell(), {"failed": "the loss is NaN"})
    with pytest.raises(TikhonError, match="Every run of none diverged: the loss is NaN"):
        examine_run(tmp_path / "broken")
    with Store(tmp_path / "empty"):
        pass
    with pytest.raises(TikhonError, match="No run has finished"):
        examine_run(tmp_path / "empty")


def test_data_that_have_changed_since_are_not_taken_for_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "changing.py").write_text(
        "import torch\nSHIFT = 0.0\ndef load():\n    x = torch.arange(240.0).reshape(80, 3)\n"
        "    return x + SHIFT, torch.arange(80) % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import changing

    from tikhon.data.sources import fingerprint, load_source

    sources = {"data": fingerprint(load_source("changing:load"))}
    one = cell(
        task={"source": "changing:load"}, model="mlp", arm="none", seed=0, epochs=2, learning_rate=1e-4, sources=sources
    )
    store(tmp_path / "runs", one)
    assert "wrong labels" in by_name(examine_run(tmp_path / "runs"))
    changing.SHIFT = 1.0
    found = examine_run(tmp_path / "runs")
    assert found.not_made["wrong labels"] == "changing:load gives other samples than it did for this run."


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2


def test_a_checkpoint_has_a_history_and_says_what_is_missing(tmp_path: Path) -> None:
    values = iter([0.5, 0.9, *[0.9] * 10, *[0.6] * 12])
    tk.fit(
        torch.nn.Linear(3, 2),
        tk.Recipe(),
        data(),
        epochs=24,
        metrics={"validation": lambda _: next(values)},
        checkpoint=tmp_path / "mine",
    )
    found = examine_run(tmp_path / "mine")
    assert [one.name for one in found.findings] == ["past its best"]
    assert found.findings[0].reading.value == pytest.approx(0.3)
    assert found.findings[0].remedies == ()
    assert "call tikhon.fit again with this checkpoint" in found.not_made["over-fitting"]
    with pytest.raises(TikhonError, match="leave --arm out"):
        examine_run(tmp_path / "mine", "none")
    torch.save({"state": {}}, tmp_path / "other.pt")
    with pytest.raises(TikhonError, match="it holds no history"):
        examine_run(tmp_path / "other.pt")


def test_what_is_no_run_is_told(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(TikhonError, match="holds no finished run"):
        examine_run(tmp_path)
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "results.db").write_bytes(b"SQLite format 3\0" + bytes(200))
    with pytest.raises(TikhonError, match="is an SQLite database of another program"):
        examine_run(tmp_path / "damaged")
    assert not math.isnan(by_name(examine_run(folder))["shift"].value)
