"""The queue on its own: random sequences against a list."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tikhon import Queue

SIZE = 4
actions = st.lists(
    st.one_of(
        st.lists(st.integers(0, 99), max_size=6).map(lambda values: ("push", values)),
        st.just(("commit", None)),
        st.integers(0, 3).map(lambda kept: ("rewind", kept)),
        st.just(("reload", None)),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(actions)
def test_random_sequences_equal_a_list(sequence: list[tuple[str, object]]) -> None:
    queue, held, staged = Queue(SIZE), [], []  # type: ignore[var-annotated]
    for action, argument in sequence:
        if action == "push":
            staged.append(argument)
            values = torch.tensor(argument, dtype=torch.int64)
            queue.push(values, values[:, None] * torch.ones(2))
        elif action == "commit":
            held, staged = [*held, *chain(*staged)][-SIZE:], []
            queue.commit()
        elif action == "rewind":
            staged = staged[:argument]  # type: ignore[misc]
            queue.rewind(argument)  # type: ignore[arg-type]
        else:
            other = Queue(SIZE)
            other.load_state_dict(copy.deepcopy(queue.state_dict()))
            queue = other
        assert queue.staged == len(staged)
        assert len(queue) == len(held)
        if queue.rows:
            values, pairs = queue.rows
            assert values.tolist() == held
            assert torch.equal(pairs, values[:, None] * torch.ones(2))


def test_every_process_lets_in_the_rows_of_all() -> None:
    queue = Queue(3)
    queue.push(torch.tensor([1.0, 2.0]))

    def gather(rows: Tensor) -> Tensor:
        return torch.cat([rows, rows + 10.0])

    queue.commit(gather)
    assert queue.rows[0].tolist() == [2.0, 11.0, 12.0]


def test_its_rows_move_with_the_method() -> None:
    queue = Queue(3)
    queue.push(torch.ones(1))
    queue.commit()
    queue.push(torch.ones(1))
    queue.double()
    queue.commit()
    assert queue.rows[0].dtype == torch.float64
