"""Confirmations wait for the processors, in order, and none is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.bridge.confirmations import Receipt
from producers.bridge.credit import Credit
from schemas.identity import CameraId


def receipt(seq: int) -> Receipt:
    return Receipt(CameraId("site/cam"), 1, 0, seq)


def test_what_lies_beyond_the_credit_waits_until_the_readers_come_nearer() -> None:
    let_go: list[Receipt] = []
    credit = Credit(10, 1000, let_go.append)
    credit.advance({0: 100}, lambda _: 0.0)
    credit.add(0, 105, [receipt(seq) for seq in range(10)])
    assert [r.seq for r in let_go] == [0, 1, 2, 3, 4]
    assert len(credit) == 5
    credit.advance({0: 103}, lambda _: 0.0)
    assert [r.seq for r in let_go] == list(range(8))
    credit.advance({0: 200}, lambda _: 0.0)
    assert [r.seq for r in let_go] == list(range(10))


def test_large_frames_have_a_smaller_credit_and_at_least_one() -> None:
    for mean, allowed in ((100.0, 10), (250.0, 4), (5000.0, 1)):
        let_go: list[Receipt] = []
        credit = Credit(10, 1000, let_go.append)
        credit.advance({0: 0}, {0: mean}.__getitem__)
        credit.add(0, 0, [receipt(seq) for seq in range(20)])
        assert len(let_go) == allowed


def test_nothing_waits_while_nobody_knows_how_far_the_readers_are() -> None:
    let_go: list[Receipt] = []
    credit = Credit(1, 1, let_go.append)
    credit.add(0, 50, [receipt(0), None, receipt(1)])
    assert len(let_go) == 2
    credit.advance({0: 0}, lambda _: 0.0)
    credit.add(0, 60, [receipt(2)])
    credit.add(0, -1, [receipt(3)])
    assert [r.seq for r in let_go] == [0, 1, 3]
    assert len(credit) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(0, 30)), max_size=40), st.integers(1, 15))
def test_every_receipt_is_let_go_once_in_order_of_its_partition(steps: list[tuple[int, int, int]], frames: int) -> None:
    let_go: list[Receipt] = []
    credit = Credit(frames, 2**40, let_go.append)
    ends, done = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)
    for partition, count, progress in steps:
        credit.add(partition, ends[partition], [receipt(1000 * partition + ends[partition] + i) for i in range(count)])
        ends[partition] += count
        done[partition] = min(ends[partition], done[partition] + progress)
        credit.advance(done, lambda _: 1.0)
        for p in range(4):
            gone = [r.seq - 1000 * p for r in let_go if r.seq // 1000 == p]
            assert gone == list(range(len(gone)))
            assert len(gone) >= min(ends[p], done[p] + frames)
    credit.advance(ends, lambda _: 1.0)
    assert len(let_go) == sum(ends.values())
