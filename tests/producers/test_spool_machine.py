"""Random histories of a spool compared with a plain model: each published frame waits, is confirmed, or is shed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from producers.spool import FrameKey, Spool, SpoolLimits, scan_spool
from producers.spool.segment import HEADER_BYTES
from schemas.errors import StateError
from tests.clocks import Clock
from tests.producers.spool_rig import CAMERA, flip, kill, ledger_copies, refuse, segments_of

LIMITS = SpoolLimits(max_bytes=200_000, max_age_s=1000)
"""Limits that hold about four segments of 64 KiB."""


class SpoolMachine(RuleBasedStateMachine):
    """One camera over many process starts, on a medium that damages bytes, fills up and fails."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.clock = Clock()
        self.published: dict[FrameKey, bytes] = {}
        """Payloads, in order of publication."""
        self.confirmed: set[FrameKey] = set()
        self.shed: set[FrameKey] = set()
        self.damaged: dict[FrameKey, bool] = {}
        """Frames with a changed byte since the last start, and whether that is a byte of the payload."""
        self.torn = False
        """Whether half a record may stand at the end of a file since the last start."""
        self.rebuilt: set[int] = set()
        """Boots with two damaged copies of their ledger."""
        self.copies: set[Path] = set()
        """Copies of ledgers with a changed byte since the last start."""
        self.boots: list[int] = []
        self.unsent: list[FrameKey] = []
        self.numbers = count()
        self.position_lost = False
        """Whether damage has removed the position of the newest frames, until the next frame has one."""
        self.start()

    def waiting(self) -> set[FrameKey]:
        return self.published.keys() - self.confirmed - self.shed

    def start(self) -> None:
        """Open the spool: only damaged frames are lost, and the ledgers list them as shed."""
        expected = self.waiting()
        for_audit = {boot.boot_id: boot for boot in scan_spool(self.folder)}
        self.spool = spool = Spool(self.folder, CAMERA, LIMITS, self.clock)
        assert spool.install_id == (self.folder / "install").read_text()
        spool.on_shed = self.shed.update
        found = {key for key in self.published if spool.get(key)}
        lost = expected - found
        assert lost <= self.damaged.keys()
        # Confirmations are durable up to the first waiting frame: later frames are sent again.
        assert found - expected <= self.confirmed
        self.confirmed -= found
        for boot_id, boot in for_audit.items():
            assert {seq for boot, seq in found if boot == boot_id} == set(boot.waiting)
        for ledger in spool.ledgers.unsettled():
            entered = {(ledger.boot_id, seq) for seq in ledger.shed}
            assert {key for key in lost if key[0] == ledger.boot_id} <= entered
            assert entered <= self.shed | lost | self.confirmed
            assert ledger.closed == (ledger is not spool.current)
            if ledger.boot_id not in self.rebuilt:
                assert ledger.next == sum(boot_id == ledger.boot_id for boot_id, _ in self.published)
                assert {key for key in self.shed if key[0] == ledger.boot_id} <= entered
        assert spool.take_damage().frames >= len(lost)
        assert spool.position <= len(self.published)
        if not self.damaged and not self.rebuilt and not self.position_lost:
            assert spool.position == len(self.published)
        self.position_lost = spool.position < len(self.published)
        self.shed |= lost
        self.damaged.clear()
        self.copies.clear()
        self.torn = False
        self.boots.append(spool.current.boot_id)
        self.unsent = sorted(found, key=self.place)

    def place(self, key: FrameKey) -> tuple[int, int]:
        """Return the order of a frame: boots in order, those with a rebuilt ledger first."""
        return self.spool.ledgers.of(key[0]).ordinal, list(self.published).index(key)

    def choose(self, number: int) -> FrameKey:
        """Return one of the waiting frames."""
        waiting = [key for key in self.published if key in self.waiting()]
        return waiting[number % len(waiting)]

    def append(self, size: int) -> None:
        spool, before = self.spool, set(self.shed)
        key, payload = (spool.current.boot_id, spool.current.next), random.Random(next(self.numbers)).randbytes(size)
        try:
            assert spool.append(payload, len(self.published), 1000 + len(self.published), 1) == key[1]
        finally:
            if spool.current.next > key[1]:
                self.position_lost = False
                self.published[key] = payload
                self.unsent.append(key)
            self.check_oldest_shed(before)

    def check_oldest_shed(self, before: set[FrameKey]) -> None:
        """Assert that the frames shed since then are older than all waiting frames."""
        newly_shed, waiting = (sorted(map(self.place, keys)) for keys in (self.shed - before, self.waiting()))
        assert not newly_shed or not waiting or newly_shed[-1] < waiting[0]

    @rule(frames=st.integers(1, 12), size=st.sampled_from([1, 900, 9000, 30_000]))
    def publish(self, frames: int, size: int) -> None:
        for _ in range(frames):
            self.append(size)

    @rule(size=st.sampled_from([900, 9000]), failures=st.integers(1, 6), short=st.booleans())
    def publish_on_a_full_disk(self, size: int, failures: int, short: bool) -> None:
        left, real = [failures], os.writev

        def writev(fd: int, parts: list[bytes]) -> int:
            if not left[0]:
                return real(fd, parts)
            left[0] -= 1
            return real(fd, parts[:1]) if short else refuse(errno.ENOSPC)()

        segments = len(segments_of(self.folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "writev", writev)
            try:
                self.append(size)
            except StateError:
                assert failures >= segments
        self.revise()

    @rule(size=st.sampled_from([900, 9000]), cut_fails=st.booleans())
    def publish_on_a_failing_medium(self, size: int, cut_fails: bool) -> None:
        """Write half a record, or half the end mark of a file, which may be impossible to cut off."""
        shed, real, self.torn = set(self.shed), os.writev, True

        def writev(fd: int, parts: list[bytes]) -> int:
            real(fd, parts[:1])
            return refuse(errno.EIO)()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "writev", writev)
            if cut_fails:
                patch.setattr(os, "ftruncate", refuse(errno.EIO))
            with pytest.raises(StateError, match="Input/output error"):
                self.append(size)
        assert self.shed == shed

    @rule(frames=st.integers(1, 12), size=st.sampled_from([900, 30_000]))
    def publish_without_ledgers(self, frames: int, size: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("producers.spool.ledgers.write_ledger", refuse(errno.ENOSPC))
            for _ in range(frames):
                try:
                    self.append(size)
                except StateError:
                    break
        self.revise()

    @rule(back=st.integers(0, 3), first=st.integers(0, 60), length=st.sampled_from([0, 3, 25, 2**52]))
    def confirm(self, back: int, first: int, length: int) -> None:
        boot_id, last = self.boots[max(0, len(self.boots) - 1 - back)], first + length
        expected = {key for key in self.waiting() if key[0] == boot_id and first <= key[1] <= last}
        freed = self.spool.confirm(boot_id, [(first, last)])
        assert sorted(freed) == sorted(expected)
        assert self.spool.confirm(boot_id ^ 1, [(first, last)]) == []
        self.confirmed |= expected

    @rule()
    def revise(self) -> None:
        """Write the outdated ledgers, as a camera does at its next tick."""
        for ledger in self.spool.ledgers.outdated():
            self.spool.ledgers.revise(ledger)
            waiting = [seq for boot_id, seq in self.waiting() if boot_id == ledger.boot_id]
            assert ledger.to_message().confirmed_to == min(waiting, default=ledger.next)
        assert self.spool.ledgers.outdated() == []

    @rule()
    def confirm_revisions(self) -> None:
        for ledger in list(self.spool.ledgers.unsettled()):
            assert self.spool.ledgers.confirm(ledger.boot_id, ledger.revision)
            assert not self.spool.ledgers.confirm(ledger.boot_id, ledger.revision)
            assert not self.spool.ledgers.confirm(ledger.boot_id, ledger.revision + 1)

    @rule(seconds=st.sampled_from([1, 30, 600, 1100]))
    def grow_older(self, seconds: float) -> None:
        self.clock.now_s += seconds
        before = set(self.shed)
        self.spool.shed_old()
        self.check_oldest_shed(before)
        assert self.spool.oldest_age_s() <= LIMITS.max_age_s * 17 / 16
        if seconds > LIMITS.max_age_s:
            assert self.spool.frames == 0

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        kill(self.spool) if killed else self.spool.close()
        self.start()

    @precondition(lambda self: self.waiting())
    @rule(number=st.integers(0, 999), where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
    def damage_a_frame(self, number: int, where: float, mask: int) -> None:
        """Change one byte of a record, at most one record in a file until the next start."""
        frame = self.spool.get(self.choose(number))
        assert frame is not None
        touched = {self.spool.get(key) for key in self.damaged}
        if frame.segment not in {each.segment for each in touched if each is not None}:
            at = int(where * (HEADER_BYTES + frame.length)) - HEADER_BYTES
            flip(frame.segment.path, frame.offset + at, mask)
            self.damaged[frame.segment.boot_id, frame.seq] = at >= 0

    @rule(back=st.integers(0, 2), where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255), copy=st.booleans())
    def damage_a_ledger(self, back: int, where: float, mask: int, copy: bool) -> None:
        boot_id = self.boots[max(0, len(self.boots) - 1 - back)]
        copies = ledger_copies(self.folder, boot_id)
        assert len(copies) in (0, 2)  # a settled boot has none
        for path in copies[copy : copy + 1]:
            flip(path, int(where * path.stat().st_size), mask)
            self.copies.add(path)
        if copies and self.copies.issuperset(copies):
            self.rebuilt.add(boot_id)

    @precondition(lambda self: self.waiting())
    @rule(number=st.integers(0, 999))
    def read(self, number: int) -> None:
        key = self.choose(number)
        frame = self.spool.get(key)
        assert frame is not None
        if self.damaged.get(key):
            with pytest.raises(StateError, match=f"frame {key[1]} as it was written"):
                self.spool.read(frame)
            del self.damaged[key]
            assert key in self.shed
            assert self.spool.take_damage() == (1, 0)
        else:
            assert self.spool.read(frame) == self.published[key]

    @rule(frames=st.integers(1, 9))
    def send(self, frames: int) -> None:
        """Send frames once each, in order of publication."""
        for _ in range(frames):
            self.unsent = [key for key in self.unsent if key in self.waiting()]
            assert self.spool.peek_unsent() == next(iter(self.unsent), None)
            if self.unsent:
                self.spool.take_unsent()
                self.unsent.pop(0)

    @invariant()
    def each_frame_has_one_fate(self) -> None:
        spool, waiting = self.spool, self.waiting()
        assert {key for key in self.published if spool.get(key)} == waiting
        assert spool.frames == len(waiting)
        assert spool.payload_bytes == sum(len(self.published[key]) for key in waiting)
        assert spool.bytes <= LIMITS.max_bytes
        assert self.torn or spool.bytes == sum(path.stat().st_size for path in segments_of(self.folder))
        assert not self.confirmed & self.shed

    @invariant()
    def the_audit_reads_the_same(self) -> None:
        waiting = self.waiting()
        for boot in scan_spool(self.folder):
            stored, shed = ({(boot.boot_id, seq) for seq in part} for part in (boot.waiting, boot.shed))
            mine = {key for key in waiting if key[0] == boot.boot_id}
            assert not stored & shed
            assert mine - self.damaged.keys() <= stored <= mine | self.confirmed
            assert shed <= self.shed | self.damaged.keys() | self.confirmed
            if boot.boot_id not in self.rebuilt:
                assert {key for key in self.shed if key[0] == boot.boot_id} <= shed

    def teardown(self) -> None:
        """Assert that the spool is drained after all confirmations, and keeps one ledger for the position."""
        spool = self.spool
        for boot_id in self.boots:
            spool.confirm(boot_id, [(0, 2**52)])
        spool.finish()
        for ledger in list(spool.ledgers.unsettled()):
            spool.ledgers.confirm(ledger.boot_id, ledger.revision)
        assert spool.drained
        assert not segments_of(self.folder)
        assert [path.name for path in self.folder.glob("*.ledger.json")] == [
            f"{spool.current.boot_id:016x}.ledger.json"
        ]
        spool.close()
        shutil.rmtree(self.folder)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
