"""The page in a real browser without network: narrow and wide, light and dark."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sample_comparison import TASK, build

from tikhon.report.comparison import Comparison
from tikhon.report.page import write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt install chromium)")

WINDOWS = {"narrow": (390, 844), "wide": (1440, 900)}

# Every element that shows text of its own, with its colour and the colour it stands on.
TEXTS = """() => {
  const standsOn = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *:not(script)")]
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((element) => {
      const style = getComputedStyle(element);
      return [element.textContent, element instanceof SVGElement ? style.fill : style.color, standsOn(element)];
    });
}"""

# Every opaque line or dot of a plot that carries meaning: what is drawn in the colour of the grid does not.
STROKES = """() => {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = "var(--grid)";
  const grid = getComputedStyle(probe).color;
  probe.remove();
  const colours = new Set();
  for (const element of document.querySelectorAll(".plot path, .plot use, .legend line")) {
    const style = getComputedStyle(element);
    if (style.stroke.startsWith("rgb") && style.strokeOpacity === "1") colours.add(style.stroke);
  }
  colours.delete(grid);
  return [[...colours], getComputedStyle(document.body).backgroundColor];
}"""


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two opaque CSS colours by WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)]
        assert len(parts) == 3, colour
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(build(), path)
    return path


@contextmanager
def opened(browser: "sync_api.Browser", path: Path, window: str, scheme: str) -> Iterator["sync_api.Page"]:
    """A page without network; fails at the end if it logged anything or asked for anything but itself."""
    width, height = WINDOWS[window]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
    page, complaints, requests = context.new_page(), [], set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.add(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert complaints == []
    assert requests - {"data:,"} == {path.as_uri()}


@pytest.fixture(
    scope="module", params=[(window, scheme) for window in WINDOWS for scheme in ("light", "dark")], ids="-".join
)
def tab(request: pytest.FixtureRequest, browser: "sync_api.Browser", report: Path) -> Iterator["sync_api.Page"]:
    """The sample's page, open throughout."""
    window, scheme = request.param
    with opened(browser, report, window, scheme) as page:
        yield page


@pytest.fixture
def page(tab: "sync_api.Page") -> "sync_api.Page":
    """The sample's page as it was first opened, for tests that change it."""
    tab.reload()
    return tab


def column(page: "sync_api.Page", index: int) -> list[str]:
    """The texts of a column of the table; 0 is the arm's name."""
    script = "index => [...document.querySelectorAll('tbody tr')].map(row => row.cells[index].firstChild.textContent)"
    return [text.strip() for text in page.evaluate(script, index)]


def test_the_page_fits_its_window_and_the_table_scrolls_in_its_own_box(tab: "sync_api.Page") -> None:
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    inside, box = tab.evaluate(
        "(({scrollWidth, clientWidth}) => [scrollWidth, clientWidth])(document.querySelector('.scroll'))"
    )
    assert inside <= box if tab.viewport_size["width"] == 1440 else inside > box


def test_plots_are_read_without_a_lens_and_nothing_sticks_out_of_them(tab: "sync_api.Page") -> None:
    sizes = tab.evaluate("""() => [...document.querySelectorAll(".plot")].map((plot) => {
        const frame = plot.getBoundingClientRect(), scale = frame.width / plot.viewBox.baseVal.width;
        const texts = [...plot.querySelectorAll("text")];
        const out = texts.filter((text) => {
            const box = text.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1
                || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
        });
        const sizes = texts.map((text) => scale * parseFloat(getComputedStyle(text).fontSize));
        return [Math.min(...sizes), out.map((text) => text.textContent)];
    })""")
    assert len(sizes) == 11
    assert all(size >= 9 for size, _ in sizes), sizes
    assert all(out == [] for _, out in sizes), sizes


def test_text_and_lines_stand_out_from_what_they_stand_on(tab: "sync_api.Page") -> None:
    texts = tab.evaluate(TEXTS)
    assert len(texts) > 150
    faint = [(text, colour, ground) for text, colour, ground in texts if contrast(colour, ground) < 4.5]
    assert faint == []
    strokes, ground = tab.evaluate(STROKES)
    assert len(strokes) >= 7
    assert [colour for colour in strokes if contrast(colour, ground) < 3] == []


def test_the_scheme_of_the_system_is_followed(tab: "sync_api.Page") -> None:
    dark = tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (contrast(ground, "rgb(0, 0, 0)") < 3) == dark


def test_a_click_on_a_heading_sorts_by_number(page: "sync_api.Page") -> None:
    page.locator("thead th").nth(6).locator("button").click()  # gaps: as text, -0.06 would come last
    assert column(page, 6) == ["+17.0", "+2.0", "-6.0", "-9.0", "-12.0", "-15.0"]
    heading = page.locator("thead th").nth(3)
    heading.locator("button").click()
    values = [arm.difference for arm in build().arms if arm.difference is not None]
    texts = [f"{100 * value:+.1f}*" for value in sorted(values, reverse=True)]
    assert column(page, 3) == [*texts, "-"]
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").click()
    assert column(page, 3) == [*reversed(texts), "-"]  # what has no value stays last
    assert heading.get_attribute("aria-sort") == "ascending"


def test_headings_sort_by_keyboard_and_only_one_is_marked(page: "sync_api.Page") -> None:
    page.locator("thead th").nth(7).locator("button").click()
    page.locator("thead th").nth(0).locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, 0) == ["early_stopping", "elr", "elr+mixup", "mixup", "none", "ps_kd"]
    page.keyboard.press("Space")
    assert column(page, 0) == ["ps_kd", "none", "mixup", "elr+mixup", "elr", "early_stopping"]
    assert page.locator("th[aria-sort]").count() == 1


def test_focus_is_seen(page: "sync_api.Page") -> None:
    page.keyboard.press("Tab")  # the table's box, which scrolls by arrow keys
    assert page.evaluate("document.activeElement.className") == "scroll"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_long_and_hostile_names_neither_run_nor_break_the_layout(browser: "sync_api.Browser", tmp_path: Path) -> None:
    sample = build()
    hostile = "<img src=x onerror=console.log(1)>" + "x" * 90
    arms = [sample.arms[0], *(replace(arm, name=f"{arm.name}{hostile}") for arm in sample.arms[1:])]
    write_page(Comparison({**TASK, "data": hostile, "model": hostile}, arms), tmp_path / "report.html")
    with opened(browser, tmp_path / "report.html", "narrow", "light") as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("img").count() == 0
        assert page.locator("h1").text_content() == f"Comparison on {hostile}"


def test_printed_it_is_dark_on_light_and_nothing_is_cut(browser: "sync_api.Browser", report: Path) -> None:
    with opened(browser, report, "wide", "light") as page:
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 718, "height": 1000})  # A4 at 96 dots an inch, less the browser's margins
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
