"""How steps are timed: in blocks, taken in turn."""

from __future__ import annotations

from tikhon.studies.cost import seconds


def test_blocks_are_taken_in_turn_each_after_a_step_that_is_not_timed() -> None:
    taken: list[str] = []
    steps = {"fast": lambda: taken.append("fast"), "slow": lambda: taken.append("slow")}
    rounds: list[int] = []
    times = seconds(steps, {"fast": 3, "slow": 1}, 2, lambda: rounds.append(len(taken)))
    assert taken == (["fast"] * 4 + ["slow"]) * 2
    assert rounds == [5, 10]
    assert {name: len(found) for name, found in times.items()} == {"fast": 2, "slow": 2}
    assert all(one > 0 for found in times.values() for one in found)
