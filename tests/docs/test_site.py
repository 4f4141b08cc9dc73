"""The site, built as `make docs` builds it and looked at in a real browser."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sysconfig
import threading
from pathlib import Path

import pytest

from tikhon.core.catalogue import catalogue

pytest.importorskip("mkdocs")
sync_api = pytest.importorskip("playwright.sync_api")
ROOT = Path(__file__).parents[2]
PAGES = (
    "",
    "problems/noisy-labels/",
    "methods/elr/",
    "methods/neural_collapse/",
    "catalogue/",
    "loops/lightning/",
    "surveys/",
)

pytestmark = pytest.mark.slow


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [str(Path(sysconfig.get_path("scripts")) / "mkdocs"), "build", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr  # strict: a link that leads nowhere is an error
    return folder


@pytest.fixture(scope="module")
def address(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no browser")
    with (
        sync_api.sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])) as found,
    ):
        yield found


def test_every_entry_has_a_page(site):
    for name in catalogue():
        text = (site / "methods" / name / "index.html").read_text(encoding="utf-8")
        assert "Evidence" in text
    assert "<math" in (site / "methods" / "elr" / "index.html").read_text(encoding="utf-8")


def test_no_marker_is_left(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<!-- methods" not in text
        assert "<!-- entries" not in text
        assert "--8&lt;--" not in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_their_window_and_fetch_nothing_from_elsewhere(address, browser, scheme, width):
    with contextlib.closing(
        browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844})
    ) as context:
        page = context.new_page()
        fetched: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: fetched.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for path in PAGES:
            assert page.goto(address + path).ok
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            used = page.evaluate("document.querySelector('[data-md-color-scheme]').dataset.mdColorScheme")
            assert used == {"light": "default", "dark": "slate"}[scheme]
        assert not [url for url in fetched if not url.startswith((address, "data:"))]
        assert not errors


def test_the_catalogue_is_filtered_and_the_view_can_be_shared(address, browser):
    with contextlib.closing(browser.new_page()) as page:
        page.goto(address + "catalogue/")
        rows = page.locator("#papers tbody tr:visible")
        everything = rows.count()
        page.locator("#filter input").fill("early-learning")
        assert rows.count() == 1
        assert "ELR" in rows.first.inner_text()
        page.locator("#filter input").fill("")
        page.select_option('#filter select[data-of="status"]', "planned")
        assert 0 < rows.count() < everything
        assert f"{rows.count()} of {everything}" in page.locator("#count").inner_text()
        shared = page.url
        page.goto(address)
        page.goto(shared)
        assert page.locator('#filter select[data-of="status"]').input_value() == "planned"
        assert 0 < rows.count() < everything
