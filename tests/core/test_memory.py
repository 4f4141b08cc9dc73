"""Per-sample memory on its own: random sequences against a dictionary."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tikhon import PerSampleMemory, TikhonError

SAMPLES = 5
writes = st.lists(
    st.tuples(st.integers(0, SAMPLES - 1), st.one_of(st.floats(-9, 9, width=32), st.just(float("nan")))), max_size=4
)
actions = st.lists(
    st.one_of(
        writes.map(lambda pairs: ("write", pairs)),
        st.just(("commit", None)),
        st.integers(0, 3).map(lambda kept: ("rewind", kept)),
        st.just(("reload", None)),
    ),
    max_size=12,
)


def as_rows(pairs: list[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    values = torch.tensor([[value, 1.0] for _, value in pairs]).reshape(-1, 2)
    return torch.tensor([sample for sample, _ in pairs], dtype=torch.int64), values


@settings(max_examples=150, deadline=None)
@given(actions)
def test_random_sequences_equal_a_dictionary(sequence: list[tuple[str, object]]) -> None:
    memory = PerSampleMemory()
    memory.reserve(SAMPLES)
    held = {sample: [0.0, 0.0] for sample in range(SAMPLES)}
    staged: list[list[tuple[int, float]]] = []
    everyone = torch.arange(SAMPLES)
    for action, argument in sequence:
        if action == "write":
            if argument:
                staged.append(argument)  # type: ignore[arg-type]
            memory.write(*as_rows(argument))  # type: ignore[arg-type]
        elif action == "commit":
            for pairs in staged:
                held |= {sample: [value, 1.0] for sample, value in pairs if value == value}
            staged = []
            memory.commit()
        elif action == "rewind":
            staged = staged[:argument]  # type: ignore[misc]
            memory.rewind(argument)  # type: ignore[arg-type]
        else:
            other = PerSampleMemory()
            other.reserve(SAMPLES)
            other.load_state_dict(copy.deepcopy(memory.state_dict()))
            memory = other
        assert memory.staged == len(staged)
        if memory.table is None:
            continue
        assert memory.table.tolist() == [held[sample] for sample in range(SAMPLES)]
        seen = dict(held)
        for pairs in staged:
            seen |= {sample: [value, 1.0] for sample, value in pairs if value == value}
        assert memory.read(everyone).tolist() == [seen[sample] for sample in range(SAMPLES)]


def test_reading_first_takes_shape_and_type_from_what_will_be_written() -> None:
    memory = PerSampleMemory()
    memory.reserve(3)
    with pytest.raises(TikhonError, match="before anything was written"):
        memory.read(torch.tensor([0]))
    found = memory.read(torch.tensor([2, 0]), like=torch.ones(2, 4, dtype=torch.float64))
    assert found.dtype == torch.float64
    assert found.shape == (2, 4)
    assert not found.any()


def test_rows_of_another_precision_are_kept_in_the_tables() -> None:
    memory = PerSampleMemory()
    memory.reserve(2)
    memory.write(torch.tensor([0]), torch.ones(1, 2))
    memory.commit()
    memory.write(torch.tensor([1]), torch.full((1, 2), 0.5, dtype=torch.bfloat16))
    memory.commit()
    assert memory.table is not None
    assert memory.table.dtype == torch.float32
    assert memory.table.tolist() == [[1.0, 1.0], [0.5, 0.5]]


def test_written_rows_carry_no_graph_and_are_gathered_at_commit() -> None:
    memory = PerSampleMemory()
    memory.reserve(4)
    memory.write(torch.tensor([0, 1]), torch.ones(2, 3, requires_grad=True))
    assert not memory.read(torch.tensor([0])).requires_grad
    # Two processes wrote the same rows for samples 0 and 1: what the second one holds comes after.
    memory.commit(lambda values: torch.cat([values, values + 2]))
    assert memory.table is not None
    assert memory.table[:, 0].tolist() == [1.0, 1.0, 3.0, 3.0]


def test_a_memory_of_scalars_and_of_matrices() -> None:
    for shape in ((), (2, 3)):
        memory = PerSampleMemory()
        memory.reserve(3)
        memory.write(torch.tensor([1, 1]), torch.stack([torch.full(shape, 1.0), torch.full(shape, 2.0)]))
        memory.commit()
        assert torch.equal(memory.read(torch.tensor([1]))[0], torch.full(shape, 2.0))


def test_a_state_of_another_number_of_samples_is_refused() -> None:
    memory, other = PerSampleMemory(), PerSampleMemory()
    memory.reserve(3)
    other.reserve(4)
    with pytest.raises(TikhonError, match="3 samples, this one 4"):
        other.load_state_dict(memory.state_dict())


def test_a_memory_of_a_fixed_number_of_rows_is_not_one_a_sample() -> None:
    memory = PerSampleMemory(rows=1)
    memory.reserve(100)
    memory.write(torch.tensor([0]), torch.ones(1, 3))
    memory.commit()
    assert memory.table is not None
    assert memory.table.tolist() == [[1.0, 1.0, 1.0]]
