"""`tools/links.py`: dead links are named, living ones counted, and no network is no verdict."""

from __future__ import annotations

import http.server
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("links", Path(__file__).parents[2] / "tools" / "links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Site(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response({"/here": 200, "/shy": 403}.get(self.path, 404))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Site.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_each_link_is_followed_once_and_the_dead_are_named(
    tool: ModuleType, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one.md", tmp_path / "other.html"
    one.write_text(
        f"[a]({address}/here#part), <{address}/shy>, `[b]({address}/code)`\n```\n[c]({address}/block)\n```\n"
    )
    other.write_text(
        f'<a class="x" href="{address}/here">a</a> <a href={address}/gone>b</a> <use href="{address}/no"/>'
    )
    assert tool.main([one, other]) == 1
    assert sorted(Site.asked) == ["/gone", "/here", "/shy"]
    assert capsys.readouterr().out.splitlines() == [
        f"{address}/gone  404 Not Found  in other.html",
        "2 of 3 links lead somewhere.",
    ]
    assert tool.main([one]) == 0


def test_without_network_nothing_is_called_dead(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "one.md"
    page.write_text("[a](http://127.0.0.1:9/a), [b](http://127.0.0.1:9/b)")  # where nobody listens
    assert tool.main([page]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("No network: none of 2 addresses was reached")
