"""The page as text: whole, escaped, alone."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from sample_comparison import TASK, build

from tikhon.core.errors import TikhonError
from tikhon.report.comparison import Comparison
from tikhon.report.page import render_page, write_page

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}{0}$\" --> ]]>"


class Reader(HTMLParser):
    """Collects ids, addresses, scripts and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")]
        if found.get("role") == "img":
            self.images.append(found)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(build())


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"\w+://[^\s\"'<>)]*", page)) <= names
    assert all(address.startswith("#") or address == "data:," for address in Reader(page).addresses)
    assert "@import" not in page


def test_every_reference_within_the_page_has_exactly_one_target(page: str) -> None:
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    wanted = {address[1:] for address in reader.addresses if address.startswith("#")}
    assert wanted | set(re.findall(r"url\(#([^)]*)\)", page)) <= set(reader.ids)


def test_text_of_plots_is_text_and_colours_come_from_the_style_sheet(page: str) -> None:
    assert "epoch" in re.findall(r"<text [^>]*>([^<]*)</text>", page)
    drawings = "".join(re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", drawings)
    used = set(re.findall(r"var\(--[a-z0-9-]+\)", drawings))
    assert {f"var(--arm-{slot})" for slot in ("none", 0, 1, 2, 3, 4)} <= used
    assert all(f"{name[4:-1]}: #" in page for name in used)


def test_every_plot_has_words_for_those_who_cannot_see_it(page: str) -> None:
    labels = [image["aria-label"] or "" for image in Reader(page).images]
    assert len(labels) == 2 + 1 + 6 + 2
    difference = 100 * (build().arms[2].difference or 0)
    assert any(label.startswith("Paired difference to none") and f"elr +{difference:.1f}" in label for label in labels)


def test_reliability_says_which_way_an_arm_errs() -> None:
    diagram = {"confidence": [None, 0.6, 0.9], "accuracy": [None, 0.5, 0.6], "count": [0, 1, 3]}
    arm = replace(build().arms[0], reliability=diagram, calibration_error=0.25)
    labels = [image["aria-label"] for image in Reader(render_page(Comparison(TASK, [arm]))).images]
    assert "Reliability of none: on average overconfident by 25.0 points, calibration error 25.0%" in labels


def test_the_same_numbers_give_the_same_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 31.0)
    assert render_page(build()) == page
    assert matplotlib.rcParams["font.size"] == 31.0


def test_names_and_settings_are_escaped_everywhere() -> None:
    sample = build()
    arms = [sample.arms[0], replace(sample.arms[1], name=HOSTILE), *sample.arms[2:]]
    reader = Reader(render_page(Comparison({"data": HOSTILE, HOSTILE: HOSTILE}, arms)))
    assert reader.tags.count("script") == 1
    assert reader.text.count(HOSTILE) >= 5
    assert any(HOSTILE in (image["aria-label"] or "") for image in reader.images)


def test_names_in_any_script_draw_without_a_warning() -> None:
    sample = build()
    page = render_page(Comparison(TASK, [sample.arms[0], replace(sample.arms[1], name="正則化")]))
    assert re.search(r"<text [^>]*>正則化", page)


def test_points_without_room_for_a_name_are_numbered() -> None:
    sample = build()
    crowd = [
        replace(
            sample.arms[1], name=f"early_stopping({index})", relative_time=1.05 + 0.01 * index, relative_memory=None
        )
        for index in range(12)
    ]
    page = render_page(Comparison(TASK, [replace(sample.arms[0], relative_memory=None), *crowd]))
    section = page[page.index('<h2 id="costs"') : page.index("<script>")]
    notes = re.findall(r"(\d+) (none|early_stopping\(\d+\))", section[section.index('class="note"') :])
    assert notes == [(str(row + 1), name) for row, name in enumerate(["none", *(arm.name for arm in crowd)])]
    shown = re.findall(r"<text [^>]*>([^<]*)</text>", section)
    assert {number for number, _ in notes} <= set(shown)
    assert not {name for _, name in notes} & set(shown)


def test_what_is_missing_is_left_out() -> None:
    arm = replace(
        build().arms[0],
        calibration_error=None,
        relative_time=None,
        relative_memory=None,
        curves={},
        reliability=None,
        low=None,
        high=None,
    )
    reader = Reader(render_page(Comparison({"metric": "r2"}, [arm])))
    assert reader.images == []
    assert "Results" in reader.text
    assert "Learning curves" not in reader.text


def test_a_single_seed_and_a_diverged_arm_can_be_shown() -> None:
    sample = build()
    nothing = {"low": None, "high": None, "difference_low": None, "difference_high": None}
    arms = [
        replace(arm, **nothing, seeds=arm.seeds[:1], curves={name: runs[:1] for name, runs in arm.curves.items()})
        for arm in sample.arms[:3]
    ]
    arms.append(
        replace(
            sample.arms[3],
            mean=math.nan,
            difference=math.nan,
            difference_low=math.nan,
            difference_high=math.nan,
            seeds=[{"seed": 0, "metric": math.nan}],
            curves={"train_loss": [[1.0, 0.5, math.inf], [1.0, 0.7]]},
        )
    )
    text = Reader(render_page(Comparison(TASK, arms))).text
    assert "without an interval" in text
    assert "nan" not in text


def test_a_mean_curve_ends_where_its_shortest_seed_ends() -> None:
    arm = replace(build().arms[0], curves={"train_loss": [[4.0, 2.0, 9.0], [2.0, 1.0]]})
    labels = [image["aria-label"] for image in Reader(render_page(Comparison(TASK, [arm]))).images]
    assert "train loss by epoch: none ends at 1.5" in labels


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    target = tmp_path / "new" / "report.html"
    write_page(build(), target)
    assert target.read_text(encoding="utf-8") == page

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TikhonError, match="No space left"):
        write_page(Comparison({}, build().arms[:1]), target)
    assert target.read_text(encoding="utf-8") == page
    assert [file.name for file in target.parent.iterdir()] == ["report.html"]
