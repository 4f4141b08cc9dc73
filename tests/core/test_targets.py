"""Target: mix, smooth, distil and lookup commute. Brute force keeps one dense row of probabilities for each sample."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tikhon import Target, TikhonError
from tikhon.core.target import Part

CLASSES = 3
SAMPLES = 7

Operation = tuple[str, float, int]
operations = st.lists(
    st.tuples(st.sampled_from(["mix", "smooth", "distil"]), st.floats(0, 1), st.integers(0, 1000)), max_size=4
)


def beliefs() -> Tensor:
    return torch.randn(SAMPLES, CLASSES, generator=torch.Generator().manual_seed(3)).double().softmax(1)


def start(rows: int) -> tuple[Target, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    y = torch.randint(CLASSES, (rows,), generator=generator)
    ids = torch.randint(SAMPLES, (rows,), generator=generator)
    weight = torch.rand(rows, generator=generator).double()
    return Target.of(y, ids, weight), ids, torch.nn.functional.one_hot(y, CLASSES).double()


def apply(target: Target, operation: Operation, table: Tensor) -> Target:
    kind, amount, seed = operation
    if kind == "mix":
        permutation = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
        return target.mix(permutation, amount)
    if kind == "smooth":
        return target.smooth(amount)
    return target.distil(lambda part: table[part.ids], amount, CLASSES)


@settings(max_examples=40, deadline=None)
@given(operations, st.integers(2, 5))
def test_dense_equals_brute_force_in_any_order(chain: list[Operation], rows: int) -> None:
    target, ids, hot = start(rows)
    table = beliefs()
    # What each sample asks for by itself is distilled; what each row is made of is mixed; smoothing comes last.
    per_sample, shares, smoothing = hot, torch.eye(rows, dtype=torch.float64), 0.0
    for operation in chain:
        target = apply(target, operation, table)
        kind, amount, seed = operation
        if kind == "mix":
            permutation = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
            shares = amount * shares + (1 - amount) * shares[permutation]
        elif kind == "smooth":
            smoothing = smoothing + amount - smoothing * amount
        else:
            per_sample = (1 - amount) * per_sample + amount * table[ids]
    expected = (1 - smoothing) * shares @ per_sample + smoothing / CLASSES
    torch.testing.assert_close(target.dense(CLASSES).double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(target.lookup(lambda i: table[i]), shares @ table[ids])
    mass = sum(part.mass() * torch.ones(rows, dtype=torch.float64) for part in target.parts)
    torch.testing.assert_close(mass, shares @ start(rows)[0].parts[0].weight)


@settings(max_examples=40, deadline=None)
@given(operations, st.randoms())
def test_operations_of_different_kinds_commute(chain: list[Operation], random: object) -> None:
    table = beliefs()
    shuffled = list(chain)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    # Two mixes, or two distillations, do not commute with each other: those keep their order.
    order = {kind: iter([one for one in chain if one[0] == kind]) for kind in ("mix", "smooth", "distil")}
    shuffled = [next(order[one[0]]) for one in shuffled]
    one, other = start(4)[0], start(4)[0]
    for operation, moved in zip(chain, shuffled, strict=True):
        one, other = apply(one, operation, table), apply(other, moved, table)
    torch.testing.assert_close(one.dense(CLASSES), other.dense(CLASSES))
    torch.testing.assert_close(one.lookup(lambda i: table[i]), other.lookup(lambda i: table[i]))


def test_dense_has_classes_second_and_adds_up_to_the_total() -> None:
    labels = torch.tensor([[0, 2], [1, 1]])
    mixed = Target.of(labels).smooth(0.3).mix(torch.tensor([1, 0]), 0.75)
    hot = torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).double()
    expected = 0.7 * (0.75 * hot + 0.25 * hot.flip(0)) + 0.1
    torch.testing.assert_close(mixed.dense(CLASSES, torch.float64), expected)
    torch.testing.assert_close(mixed.dense(CLASSES, torch.float64, total=-0.5), -0.5 * expected)
    torch.testing.assert_close(Target.of(expected.float()).dense(CLASSES), expected.float())


def test_labels_without_probabilities_are_refused() -> None:
    table = torch.ones(2, CLASSES) / CLASSES
    for soften in (
        lambda target: target.dense(CLASSES),
        lambda target: target.parts[0].dense(CLASSES),
        lambda target: target.distil(lambda part: table, 0.5, CLASSES),
    ):
        with pytest.raises(TikhonError, match="to be ignored"):
            soften(Target.of(torch.tensor([1, -100])))
        with pytest.raises(RuntimeError, match="out of bounds"):
            soften(Target.of(torch.tensor([1, CLASSES])))


def test_mixing_permutes_ids_and_weights_and_keeps_the_own_sample_first() -> None:
    target = Target.of(torch.tensor([0, 1, 2]), torch.tensor([5, 6, 4]), torch.tensor([1.0, 2.0, 3.0]))
    mixed = target.mix(torch.tensor([2, 0, 1]), 0.6)
    assert mixed.ids.tolist() == [5, 6, 4]
    assert mixed.value.tolist() == [0, 1, 2]
    partner = mixed.parts[1]
    assert partner.value.tolist() == [2, 0, 1]
    assert partner.ids.tolist() == [4, 5, 6]
    assert partner.weight.tolist() == [3.0, 1.0, 2.0]
    assert [part.share for part in mixed.parts] == [0.6, 0.4]


def test_every_operation_leaves_the_target_and_the_callers_tensors_alone() -> None:
    y, ids, weight = torch.tensor([0, 1, 2]), torch.tensor([5, 6, 4]), torch.tensor([1.0, 2.0, 3.0])
    copies = y.clone(), ids.clone(), weight.clone()
    target = Target.of(y, ids, weight)
    target.mix(torch.tensor([2, 0, 1]), 0.5).smooth(0.1).distil(lambda part: torch.ones(3, 3) / 3, 0.5, 3).weighted(
        torch.zeros(3)
    ).repeat(2)
    assert len(target.parts) == 1
    assert target.smoothing == 0.0
    assert all(torch.equal(a, b) for a, b in zip(copies, (y, ids, weight), strict=True))


def test_weighted_multiplies_the_own_weights_and_repeat_stacks_the_batch() -> None:
    target = Target.of(torch.tensor([0, 1]), torch.tensor([3, 4])).weighted(torch.tensor([1.0, 2.0]))
    again = target.weighted(torch.tensor([5.0, 5.0]))
    assert again.parts[0].weight.tolist() == [5.0, 10.0]
    mixed = again.mix(torch.tensor([1, 0]), torch.tensor([0.5, 1.0])).repeat(3)
    assert mixed.value.tolist() == [0, 1] * 3
    assert mixed.ids.tolist() == [3, 4] * 3
    assert mixed.parts[1].weight.tolist() == [10.0, 5.0] * 3
    assert mixed.parts[1].share.tolist() == [0.5, 0.0] * 3


def test_a_share_for_each_row_travels_with_its_row() -> None:
    part = Part(torch.tensor([0, 1]), share=torch.tensor([0.9, 0.2]))
    mixed = Target((part,)).mix(torch.tensor([1, 0]), torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(mixed.parts[0].share, torch.tensor([0.45, 0.05]))
    torch.testing.assert_close(mixed.parts[1].share, torch.tensor([0.2 * 0.5, 0.9 * 0.75]))


def test_the_dominant_part_is_the_largest_share_and_the_own_sample_where_equal() -> None:
    target = Target.of(torch.tensor([0, 1, 2, 3]))
    assert torch.equal(target.dominant, target.value)
    permutation = torch.tensor([1, 2, 3, 0])
    mixed = target.mix(permutation, torch.tensor([0.4, 0.5, 0.6, 0.0]))
    assert mixed.dominant.tolist() == [1, 1, 2, 0]
    soft = Target.of(torch.eye(4)).mix(permutation, 0.3)
    assert torch.equal(soft.dominant, torch.eye(4)[permutation])
