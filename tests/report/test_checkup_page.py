"""The page of an examination as text, and in a real browser: narrow and wide, light and dark."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from test_report_browser import STROKES, TEXTS, contrast
from test_report_page import Reader

from tikhon.core.errors import TikhonError
from tikhon.report.checks import CHECKS
from tikhon.report.checkup_page import render_checkup
from tikhon.report.examined import Checkup, Drawn, Examined, Remedy
from tikhon.report.readings import Reading

HOSTILE = "<script>alert('x')</script>" + "x" * 90


def one(name: str, value: float, low: float, high: float, *remedies: Remedy, where: str = "") -> Examined:
    reading = Reading(value, low, high, where, tuple(range(12)))
    return Examined(name, CHECKS[name], reading, CHECKS[name].weight(reading), remedies)


def checkup() -> Checkup:
    epochs = range(1, 31)
    curves = {
        "train_loss": [[2.0 / epoch for epoch in epochs]],
        "test_loss": [[1.0 + 0.02 * epoch for epoch in epochs]],
        "test_metric": [[0.9 - 0.003 * epoch for epoch in epochs]],
    }
    remedies = (Remedy("elr", "survey: +0.031 metric on 6 tasks", "tk.Recipe(tk.ELR(strength=3.0, momentum=0.7))"),)
    return Checkup(
        findings=(
            one("wrong labels", 0.304, 0.259, 0.347, *remedies),
            one("imbalance", math.inf, 31.0, math.inf, where=f"class {HOSTILE}, 0 samples"),
        ),
        sound=tuple(one(name, 0.0, -0.02, 0.01) for name in ("over-fitting", "past its best", "over-confidence")),
        not_made={"dead units": f"there is no {HOSTILE}"},
        about={"model": HOSTILE, "training samples": "518"},
        drawn=Drawn(
            curves,
            {"confidence": [0.6, None, 0.9], "accuracy": [0.5, None, 0.7], "count": [10, 0, 30]},
            ([90, 40, 1], [30, 30, 30]),
        ),
    )


def test_it_says_all_of_it_fetches_nothing_and_escapes_what_it_is_given() -> None:
    page = render_checkup(checkup())
    assert page == render_checkup(checkup())
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert all(address.startswith("#") or address == "data:," for address in reader.addresses)
    assert "script" not in reader.tags
    for said in (
        "2 findings, the heaviest first: wrong labels, imbalance.",
        "30.4% of training labels [25.9%, 34.7%], limit 5.0%",
        "recipe = tk.Recipe(tk.ELR(strength=3.0, momentum=0.7))",
        "elr: survey: +0.031 metric on 6 tasks",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
        "model = recipe.prepare(model, samples=len(train))",
        f"there is no {HOSTILE}",
    ):
        assert said in reader.text
    pictures = [image["aria-label"] for image in reader.images]
    assert len(pictures) == 5 + 2 + 1 + 1  # a number each, losses and metrics, reliability, classes
    assert "loss by epoch: train ends at 0.0667; test ends at 1.6" in pictures


def test_of_what_is_well_it_says_that_there_is_nothing_to_mend() -> None:
    ill = checkup()
    text = Reader(render_checkup(Checkup((), ill.sound, {}))).text
    assert "Nothing to mend" in text
    assert "recipe" not in text
    assert "Learning curves" not in text


def test_values_have_neither_classes_nor_reliability_and_many_classes_are_a_line() -> None:
    plain = Reader(render_checkup(Checkup((), (), {}, drawn=Drawn(checkup().drawn.curves))))
    assert len(plain.images) == 2
    many = Reader(render_checkup(Checkup((), (), {}, drawn=Drawn(counts=([*range(1, 101)], [1] * 100)))))
    assert [image["aria-label"] for image in many.images] == ["Training samples: 100 of class 99 down to 1 of class 0"]


@pytest.mark.parametrize(("name", "said"), [("", "is a folder"), ("a.pdf", "does not end in .html")])
def test_what_is_no_place_for_a_page_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(TikhonError, match=said):
        checkup().write(tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(TikhonError, match="cannot be written into"):
        checkup().write(tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_it_fits_is_read_and_asks_for_nothing(tmp_path: Path, width: int, scheme: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the PATH (Debian: apt install chromium)")
    path = tmp_path / "report.html"
    checkup().write(path)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
        page, complaints, requests = context.new_page(), [], set()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: requests.add(request.url))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator(".plot").count() == 9
        out = page.evaluate("""() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
            const frame = plot.getBoundingClientRect();
            return [...plot.querySelectorAll("text")].filter((text) => {
                const box = text.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1;
            }).map((text) => text.textContent);
        })""")
        assert out == []
        texts = page.evaluate(TEXTS)
        assert [text for text, colour, ground in texts if contrast(colour, ground) < 4.5] == []
        strokes, ground = page.evaluate(STROKES)
        assert len(strokes) >= 4
        assert [colour for colour in strokes if contrast(colour, ground) < 3] == []
        assert (contrast(ground, "rgb(0, 0, 0)") < 3) == (scheme == "dark")
        browser.close()
    assert complaints == []
    assert requests - {"data:,"} == {path.as_uri()}
