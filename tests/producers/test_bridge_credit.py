"""The credit of the processors: receipts wait for it in order, and none is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.bridge.confirmations import Receipt
from producers.bridge.credit import Credit
from schemas.identity import CameraId


def receipt(seq: int) -> Receipt:
    return Receipt(CameraId("site/cam"), 1, 0, seq)


def test_receipts_beyond_the_credit_wait_until_the_processors_advance() -> None:
    released: list[Receipt] = []
    credit = Credit(10, 1000, released.append)
    credit.advance({0: 100}, lambda _: 0.0)
    credit.add(0, 105, [receipt(seq) for seq in range(10)])
    assert [r.seq for r in released] == [0, 1, 2, 3, 4]
    assert len(credit) == 5
    credit.advance({0: 103}, lambda _: 0.0)
    assert [r.seq for r in released] == list(range(8))
    credit.advance({0: 200}, lambda _: 0.0)
    assert [r.seq for r in released] == list(range(10))


def test_large_frames_have_a_smaller_credit_of_at_least_one() -> None:
    for mean, allowed in ((100.0, 10), (250.0, 4), (5000.0, 1)):
        released: list[Receipt] = []
        credit = Credit(10, 1000, released.append)
        credit.advance({0: 0}, {0: mean}.__getitem__)
        credit.add(0, 0, [receipt(seq) for seq in range(20)])
        assert len(released) == allowed


def test_receipts_are_released_at_once_while_the_processors_progress_is_unknown() -> None:
    released: list[Receipt] = []
    credit = Credit(1, 1, released.append)
    credit.add(0, 50, [receipt(0), None, receipt(1)])
    assert len(released) == 2
    credit.advance({0: 0}, lambda _: 0.0)
    credit.add(0, 60, [receipt(2)])
    credit.add(0, -1, [receipt(3)])
    assert [r.seq for r in released] == [0, 1, 3]
    assert len(credit) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(0, 30)), max_size=40), st.integers(1, 15))
def test_every_receipt_is_released_once_in_the_order_of_its_partition(
    steps: list[tuple[int, int, int]], frames: int
) -> None:
    released: list[Receipt] = []
    credit = Credit(frames, 2**40, released.append)
    ends, done = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)
    for partition, count, progress in steps:
        credit.add(partition, ends[partition], [receipt(1000 * partition + ends[partition] + i) for i in range(count)])
        ends[partition] += count
        done[partition] = min(ends[partition], done[partition] + progress)
        credit.advance(done, lambda _: 1.0)
        for p in range(4):
            released_seqs = [r.seq - 1000 * p for r in released if r.seq // 1000 == p]
            assert released_seqs == list(range(len(released_seqs)))
            assert len(released_seqs) >= min(ends[p], done[p] + frames)
    credit.advance(ends, lambda _: 1.0)
    assert len(released) == sum(ends.values())
