"""The offsets of a partition that may be committed."""

from __future__ import annotations

from itertools import accumulate, takewhile
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.arrivals.progress import PartitionProgress


@given(
    gaps=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    shuffle=st.randoms(use_true_random=False),
    steps=st.lists(st.booleans(), max_size=60),
)
def test_only_the_contiguous_prefix_of_finished_offsets_may_be_committed(
    gaps: list[int], shuffle: Random, steps: list[bool]
) -> None:
    offsets = list(accumulate(gaps))
    progress = PartitionProgress()
    begun: list[int] = []
    done: set[int] = set()
    for begins in [*steps, *[True] * len(offsets), *[False] * len(offsets)]:
        unfinished = [offset for offset in begun if offset not in done]
        if begins and len(begun) < len(offsets):
            begun.append(offsets[len(begun)])
            progress.begin(begun[-1])
        elif unfinished:
            offset = shuffle.choice(unfinished)
            progress.finish(offset)
            done.add(offset)
        prefix = list(takewhile(done.__contains__, begun))
        assert progress.uncommitted() == (prefix[-1] + 1 if prefix else None)
    assert progress.uncommitted() == offsets[-1] + 1


def test_a_committed_offset_is_not_committed_again() -> None:
    progress = PartitionProgress()
    progress.begin(4)
    progress.begin(9)
    progress.finish(4)
    assert progress.uncommitted() == 5
    progress.committed(5)
    assert progress.uncommitted() is None
    progress.finish(9)
    assert progress.uncommitted() == 10


def test_a_result_that_is_newer_than_a_running_commit_stays_uncommitted() -> None:
    progress = PartitionProgress()
    progress.begin(0)
    progress.begin(1)
    progress.finish(0)
    committing = progress.uncommitted()
    progress.finish(1)
    assert committing is not None
    progress.committed(committing)
    assert progress.uncommitted() == 2


def test_offsets_must_begin_in_ascending_order() -> None:
    progress = PartitionProgress()
    progress.begin(3)
    progress.finish(3)
    with pytest.raises(ValueError, match="above 3, got 3"):
        progress.begin(3)


def test_a_new_partition_has_nothing_in_flight_to_commit_or_to_recall() -> None:
    progress = PartitionProgress()
    assert progress.uncommitted() is None
    assert (progress.in_flight, progress.last) == (0, None)
    assert progress.recalling is False
