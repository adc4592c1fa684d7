"""Ranges of the identities of all frames that were ever recorded."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.database import archive as archive_module
from consumers.database.archive import Archive, RowKind, grown, load
from consumers.database.runs import all_numbers, boot_numbers
from consumers.database.tables import archived
from consumers.records.batch import BootKey
from schemas.ranges import RangeSet
from tests.consumers.recorder_rig import BOOT, CAMERA, ON_POSTGRESQL, MakeRig, Rig, dead_letter, verdict

NUMBERS = st.sets(st.integers(0, 40))


@given(NUMBERS, NUMBERS)
def test_the_changed_ranges_contain_the_old_and_the_new_numbers(before: set[int], new: set[int]) -> None:
    ranges = dict(RangeSet.of(before).ranges())
    removed, changed = grown(ranges, new)
    for first in removed:
        del ranges[first]
    for first, last in changed:
        assert ranges.get(first) != last
        ranges[first] = last
    assert RangeSet(ranges.items()) == RangeSet.of(before | new)
    assert sorted(ranges.items()) == list(RangeSet.of(before | new).ranges())


def stored_ranges(rig: Rig) -> dict[BootKey, list[tuple[int, int]]]:
    """Return the ranges in the database."""
    found: defaultdict[BootKey, list[tuple[int, int]]] = defaultdict(list)
    with rig.engine.begin() as connection:
        for row in connection.execute(archived.select().order_by(archived.c.first)):
            found[row.camera, row.boot].append((row.first, row.last))
    return dict(found)


@ON_POSTGRESQL
@pytest.mark.parametrize("seed", range(4))
def test_each_frame_of_a_random_stream_is_recorded_once_and_repeats_are_duplicates(
    make_rig: MakeRig, seed: int
) -> None:
    rig, rng = make_rig(), random.Random(seed)
    known: defaultdict[BootKey, set[int]] = defaultdict(set)
    received = 0
    for _ in range(25):
        made = [verdict(rng.randrange(80), boot=rng.randrange(1, 4)) for _ in range(rng.randrange(1, 12))]
        camera = rng.choice(("lab/a", "lab/b"))
        written = rig.verdicts(made, camera)
        received += len(made)
        identities = {(camera, each.boot_id, each.seq) for each in made}
        new = {key for key in identities if key[2] not in known[key[:2]]}
        assert {(row.camera, row.boot, row.seq) for row in written.rows} == new
        assert written.duplicates == len(made) - len(new)
        for key in new:
            known[key[:2]].add(key[2])
    assert stored_ranges(rig) == {
        boot: list(RangeSet.of(numbers).ranges()) for boot, numbers in known.items() if numbers
    }
    frames = sum(map(len, known.values()))
    assert rig.count("frames") == frames
    with rig.records() as records:
        assert records.duplicates() == received - frames
        assert records.recorded_by_boot() == {boot: RangeSet.of(seqs) for boot, seqs in known.items() if seqs}


def test_the_archive_finds_purged_frames_and_joins_the_ranges_that_they_touch(rig: Rig) -> None:
    archive = Archive(rig.engine)
    with rig.engine.begin() as connection:
        archive.add(connection, RowKind.FRAME, [])
        assert archive.frames(connection, [("lab/a", 1, 4)]) == {}
        archive.add(connection, RowKind.FRAME, [("lab/a", 1, 4), ("lab/b", 1, 5), ("lab/c", 2, 6)])
        found = archive.frames(connection, [("lab/a", 1, 4), ("lab/b", 1, 5), ("lab/b", 2, 6), ("lab/c", 2, 1)])
        assert {boot: list(ranges) for boot, ranges in found.items() if boot[0] != "lab/c"} == {
            ("lab/a", 1): [4],
            ("lab/b", 1): [5],
        }
        archive.add(connection, RowKind.FRAME, [("lab/a", 1, 5), ("lab/a", 1, 3)])
    assert stored_ranges(rig) == {("lab/a", 1): [(3, 5)], ("lab/b", 1): [(5, 5)], ("lab/c", 2): [(6, 6)]}


@pytest.mark.parametrize("seed", range(4))
def test_the_archive_of_random_numbers_holds_exactly_them(rig: Rig, seed: int) -> None:
    archive, rng, known = Archive(rig.engine), random.Random(seed), set[int]()
    with rig.engine.begin() as connection:
        for _ in range(40):
            numbers = {rng.choice((0, 100, 2**40)) + rng.randrange(60) for _ in range(rng.randrange(1, 9))}
            keys = [(CAMERA, BOOT, number) for number in numbers]
            found = archive.frames(connection, keys).get((CAMERA, BOOT), RangeSet())
            assert {number for number in numbers if number in found} == numbers & known
            archive.add(connection, RowKind.FRAME, keys)
            known |= numbers
            since, until = sorted(rng.sample(range(160), 2))
            some = load(connection, RowKind.FRAME, CAMERA, BOOT, since, until)
            assert {number for number in range(since, until + 1) if number in some} == {
                number for number in known if since <= number <= until
            }
            assert load(connection, RowKind.FRAME, CAMERA, BOOT) == RangeSet.of(known)


@pytest.mark.parametrize("new", [[4001], [1999, 2000, 2001], [2, 4000], [2**40]])
def test_a_purge_step_reads_only_the_ranges_near_its_numbers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, new: list[int]
) -> None:
    archive, read = Archive(rig.engine), list[int]()

    def counted(before: Mapping[int, int], numbers: Iterable[int]) -> object:
        read.append(len(before))
        return grown(before, numbers)

    with rig.engine.begin() as connection:
        archive.add(connection, RowKind.FRAME, [(CAMERA, BOOT, number) for number in range(1, 4001, 2)])
        monkeypatch.setattr(archive_module, "grown", counted)
        archive.add(connection, RowKind.FRAME, [(CAMERA, BOOT, number) for number in new])
        assert load(connection, RowKind.FRAME, CAMERA, BOOT) == RangeSet.of({*range(1, 4001, 2), *new})
        assert read[0] <= 6
        (ranges,) = archive.frames(connection, [(CAMERA, BOOT, number) for number in new]).values()
        assert len(list(ranges.ranges())) <= 6


def test_only_verified_dead_letters_have_identities(make_rig: MakeRig) -> None:
    rig = make_rig()
    for seq in (1, 2, 4):
        rig.letter(dead_letter(seq, verified=seq != 2))
    expected = RangeSet.of({1, 4})
    with rig.engine.begin() as connection:
        assert boot_numbers(connection, RowKind.DEAD_LETTER, CAMERA, BOOT) == expected
    assert all_numbers(rig.engine, RowKind.DEAD_LETTER) == {(CAMERA, BOOT): expected}
