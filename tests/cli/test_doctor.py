"""`tikhon doctor`."""

import json
import re
import sys
from pathlib import Path

import pytest
from commands import refused, run

CLINIC = """
import torch
from torch import nn
from tikhon.report.patient import Patient

torch.manual_seed(0)
x = torch.randn(400, 5)
y = (x[:, 0] > 0).long()


def model(scale):
    found = nn.Sequential(nn.Linear(5, 2))
    found[0].weight.data = scale * torch.tensor([[0.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.0]])
    found[0].bias.data.zero_()
    return found


def well():
    return Patient(model(5.0), (x[:300], y[:300]), (x[300:], y[300:]))


def ill():
    return Patient(model(1000.0), (x[:300], y[:300]), (x[300:], 1 - y[300:]))


def odd():
    return {"model": model(1.0)}


def out_of_range():
    return Patient(model(1.0), (x[:300], y[:300] + 1), (x[300:], y[300:]))
"""


@pytest.fixture(autouse=True)
def _clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clinic.py").write_text(CLINIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "clinic", raising=False)


def test_it_says_what_is_wrong_how_much_and_what_helps_within_80_columns() -> None:
    result = run("doctor", "clinic:ill")
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0].startswith("1. over-")
    assert any(re.fullmatch(r"   \d+\.\d% too sure \[\d+\.\d%, \d+\.\d%\], limit 5\.0%", line) for line in lines)
    assert any(line.startswith("   recipe = tk.Recipe(tk.") for line in lines)
    assert "loss = recipe.loss(inputs, labels, index=places_in_train)" in lines
    assert max(map(len, lines)) <= 80


def test_it_says_when_there_is_nothing_to_mend() -> None:
    lines = run("doctor", "clinic:well").stdout.splitlines()
    assert lines[0].startswith("Nothing to mend")
    assert "recipe" not in " ".join(lines)


def test_json_has_all_of_it() -> None:
    found = json.loads(run("doctor", "clinic:ill", "--json").stdout)
    assert set(found) == {"findings", "sound", "not_made"}
    checks = {one["check"]: one for one in found["findings"]}
    assert {"over-fitting", "over-confidence", "softmax collapse"} <= set(checks)
    one = checks["over-fitting"]
    assert (one["problem"], one["limit"]) == ("overfitting", 0.05)
    assert one["low"] <= one["value"] <= one["high"]
    assert set(one["methods"][0]) == {"name", "evidence", "recipe"}
    assert [one["weight"] for one in found["findings"]] == sorted(
        (one["weight"] for one in found["findings"]), reverse=True
    )


def test_wrong_input_is_told_what_to_do() -> None:
    assert "is not of the form module:function" in refused("doctor", "clinic")
    assert "there is no module 'clinik'" in refused("doctor", "clinik:well")
    assert "Did you mean 'well'" in refused("doctor", "clinic:wel")
    assert "returned dict; expected a tikhon.report.patient.Patient" in refused("doctor", "clinic:odd")
    assert "The training labels range from 1 to 2, but the model has 2 classes" in refused(
        "doctor", "clinic:out_of_range"
    )


def test_the_page_is_written_and_what_is_no_place_for_it_is_refused_before_anything_is_computed() -> None:
    result = run("doctor", "clinic:ill", "--out", "folder/report.html")
    assert result.stdout.splitlines()[-1] == "Report: folder/report.html"
    assert "over-fitting" in Path("folder/report.html").read_text()
    json.loads(run("doctor", "clinic:ill", "--json", "--out", "other.html").stdout)
    assert Path("other.html").exists()
    assert "folder is a folder" in refused("doctor", "clinic:explodes", "--out", "folder")
    assert "does not end in .html" in refused("doctor", "clinic:explodes", "--out", "report.pdf")


def test_a_finished_run_is_examined_from_what_it_stored() -> None:
    run("compare", "--data", "wine", "--methods", "none,mixup", "--seeds", "2", "--epochs", "10", "--out", "mine")
    lines = run("doctor", "mine", "--out", "report.html").stdout.splitlines()
    assert any(line.startswith("  softmax collapse: The trained model is not stored") for line in lines)
    assert any(line.startswith("  over-fitting: a gap of") for line in lines)
    assert "<dt>arm</dt><dd>none</dd>" in Path("report.html").read_text()
    assert run("doctor", "mine", "--arm", "mixup").stdout != run("doctor", "mine").stdout
    assert "unknown arm 'mixap'. Did you mean 'mixup'" in refused("doctor", "mine", "--arm", "mixap")
    assert "There is no mine/other" in refused("doctor", "mine/other")
    assert "Leave it out" in refused("doctor", "clinic:well", "--arm", "none")
