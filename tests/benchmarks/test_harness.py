"""The harness: what counts as the same answer, when it refuses, and what a row says."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

pytest.importorskip("psutil")

from benchmarks import harness, stored
from benchmarks.harness import Busy, Case, Pair, measure, wait_until_quiet
from tikhon.studies import cost

KEYS = {"case", "peer", "peer_version", "ratio", "ratio_low", "ratio_high", "memory_ratio", "same_answer", "machine"}
THREE = torch.tensor([1.0, 2.0, 3.0])


def answers(ours, theirs, **settings) -> bool:
    return Pair(lambda: ours, lambda: theirs, **settings).agree()


class TestAgreement:
    def test_within_the_tolerance_of_the_largest_value(self) -> None:
        assert answers(THREE, THREE + 2e-5)
        assert not answers(THREE, THREE + 4e-5)
        assert answers(THREE, THREE + 4e-5, tolerance=1e-4)

    def test_several_answers_are_compared_one_by_one(self) -> None:
        assert answers((THREE, 1.0), [THREE, torch.tensor(1.0)])
        assert not answers((THREE, 1.0), (THREE, 2.0))
        with pytest.raises(ValueError, match="1 answers, theirs 2"):
            answers(THREE, (THREE, THREE))

    def test_another_shape_or_no_number_is_another_answer(self) -> None:
        assert not answers(THREE, THREE[None])
        assert not answers(THREE * math.nan, THREE * math.nan)
        assert answers(torch.empty(0), torch.empty(0))

    def test_a_case_may_say_itself_what_is_the_same(self) -> None:
        assert answers(THREE, -THREE, same=lambda: True)
        assert not answers(THREE, THREE, same=lambda: False)


class TestRows:
    @pytest.fixture
    def short(self, monkeypatch) -> None:
        monkeypatch.setattr(harness, "ROUNDS", (2, 2))
        monkeypatch.setattr(cost, "BLOCK_SECONDS", 1e-5)

    def test_a_row_has_what_the_table_and_its_readers_need(self, short) -> None:
        row = measure(Case("sums", "torch", lambda: Pair(THREE.sum, THREE.sum), "a note"), 0.0, refuse=False)
        assert set(row) >= KEYS
        assert (row["case"], row["peer"], row["note"]) == ("sums", "torch", "a note")
        assert row["peer_version"] == torch.__version__
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["same_answer"] is True

    def test_memory_is_counted(self, short) -> None:
        """Twice the numbers are twice the bytes, whatever the clock says."""
        pair = Pair(lambda: torch.ones(2000), lambda: torch.ones(1000), same=lambda: False)
        row = measure(Case("ones", "torch", lambda: pair), 0.0, refuse=False)
        assert row["memory_ratio"] == 2.0
        assert row["same_answer"] is False

    def test_each_side_begins_every_other_round(self, short) -> None:
        order: list[str] = []
        ours, theirs = (lambda: order.append("ours")), (lambda: order.append("theirs"))
        harness._in_turn(Pair(ours, theirs), 0.0)
        blocks = [one for place, one in enumerate(order) if place == 0 or order[place - 1] != one]
        assert blocks[-3:] == ["ours", "theirs", "ours"]  # two rounds, the second the other way round


class TestBusyMachines:
    @pytest.fixture
    def neighbour(self):
        """A process that computes without end."""
        with subprocess.Popen(
            [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
        ) as busy:
            busy.stdout.readline()
            yield
            busy.kill()

    def test_a_busy_neighbour_is_seen_and_refused(self, neighbour) -> None:
        with pytest.raises(Busy, match="cores busy"):
            wait_until_quiet(patience=0.0)


class TestStoring:
    def row(self, case: str, ratio: float, environment: str = "peers") -> dict[str, object]:
        return {"case": case, "peer": "torch", "ratio": ratio, "environment": environment}

    def test_a_row_replaces_that_of_its_case(self, tmp_path) -> None:
        path = tmp_path / "results.json"
        assert stored.read(path) == []
        for row in (self.row("b", 0.5), self.row("a", 0.7), self.row("b", 0.9)):
            stored.keep_row(path, row)
        assert [(row["case"], row["ratio"]) for row in stored.read(path)] == [("a", 0.7), ("b", 0.9)]

    def test_rows_of_cases_that_are_gone_go_but_for_other_environments(self, tmp_path) -> None:
        path = tmp_path / "results.json"
        for row in (self.row("a", 0.5), self.row("b", 0.7), self.row("c", 0.9, "vision")):
            stored.keep_row(path, row)
        stored.drop_others(path, "peers", [Case("a", "torch", lambda: Pair(THREE.sum, THREE.sum))])
        assert [row["case"] for row in stored.read(path)] == ["a", "c"]
