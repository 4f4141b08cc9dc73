"""The choice of an engine: what is refused before anything runs."""

import socket
import sys
from pathlib import Path

import pytest
from commands import refused

COMPARE = ("compare", "--data", "wine", "--methods", "none", "--epochs", "1")


@pytest.mark.parametrize("command", [COMPARE, ("prove", "elr")])
def test_what_cannot_run_is_refused(command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "add --engine ray, or leave it out" in refused(*command, "--address", "auto")
    assert "unknown engine 'rye'. Did you mean 'ray'?" in refused(*command, "--engine", "rye")
    client = refused(*command, "--engine", "ray", "--address", "ray://head:10001")
    assert "cannot stream progress" in client
    assert "ray job submit" in client
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        missing = refused(*command, "--engine", "ray", "--address", address)
    assert f"no Ray cluster to join at '{address}'" in missing
    assert "`ray start --head` starts one" in missing
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "tikhon.integrations.ray", raising=False)
    assert "pip install 'tikhon[ray]'" in refused(*command, "--engine", "ray")
