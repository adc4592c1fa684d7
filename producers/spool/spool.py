"""A camera's spool: a bounded folder of published frames without a confirmation."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import structlog
from pydantic import Field

from producers.spool.clock import SpoolClock
from producers.spool.damage import Damage
from producers.spool.folder import FolderLock, install_id
from producers.spool.ledger import BootLedger
from producers.spool.ledgers import Ledgers
from producers.spool.reading import SegmentReader, UnreadableError
from producers.spool.recovery import recover
from producers.spool.segment import HEADER_BYTES, Segment
from producers.spool.writing import DiskFullError, SegmentWriter
from schemas.clock import unix_ms
from schemas.errors import BadTagError, StateError
from schemas.identity import BOOT_ID_LIMIT, CameraId
from schemas.keys.keys import CameraKey, Purpose
from schemas.messages.frame import group_of
from schemas.settings import SettingsTable

_log = structlog.get_logger()

_SEGMENTS: Final = 16
_SEGMENT_BYTES: Final = (64 * 2**10, 4 * 2**20)
_UNREADABLE_MS: Final = 60_000
"""Time in ms after which frames that the disk cannot read count as damaged. Until then the fault may pass."""

FrameKey = tuple[int, int]
"""Boot id and sequence number: with the camera id, the identity of a frame."""


class SpoolLimits(SettingsTable):
    """Bounds of one camera's spool: bytes on disk, and age in seconds of the spool's own clock."""

    max_bytes: int = Field(default=256 * 2**20, ge=2**12)
    """Maximum bytes on disk. A full spool sheds (deletes and counts) its oldest frames."""
    max_age_s: float = Field(default=86_400.0, gt=0)
    """Maximum age in seconds; older frames are shed."""


class SpooledFrame(NamedTuple):
    """The place of an unconfirmed frame, its CRC-32, and the time on the spool's clock at which it was appended."""

    segment: Segment
    seq: int
    offset: int
    length: int
    checksum: int
    spooled_ms: int


class Spool:
    """Frames of one camera on disk, in order of publication; one process at a time.

    A frame is published when `append` returns. It stays until `confirm` names it, `shed_unsendable` sheds it or a bound
    is exceeded. Then the oldest segments are shed: their unconfirmed frames are entered in their boot's ledger, and the
    file is removed. Nothing is synced to the disk: the spool survives a crash of the process, but no power cut in the
    last seconds. Frames of earlier boots keep their boot ids and are sent before new ones. A single frame whose
    bytes are damaged or missing is shed. Age is counted on the spool's own clock, which runs on `monotonic` (seconds).

    Raises `StateError` when the folder is used by another process, belongs to another camera or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        camera_id: CameraId,
        limits: SpoolLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.camera_id = camera_id
        self._limits = limits or SpoolLimits()
        low, high = _SEGMENT_BYTES
        bound = self._limits.max_bytes
        segment_bytes = min(max(bound // _SEGMENTS, low), high, bound // 2)
        self._writer = SegmentWriter(folder, segment_bytes, self._limits.max_age_s * 1000 / _SEGMENTS)
        self._lock = FolderLock(folder)
        try:
            self.install_id = install_id(folder)
            past = recover(folder, camera_id)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise StateError(
                    f"spool {folder}: expected a folder that can be opened, got {error.strerror}. Check the disk."
                ) from None
            raise
        self._clock = SpoolClock(past.clock_ms, monotonic)
        self._damage = past.damage
        self.position_lost = past.position_lost
        """Whether `position` may be an older one, because damage has destroyed a ledger."""
        self._segments = past.segments
        self._frames: dict[FrameKey, SpooledFrame] = {}
        self.bytes = sum(segment.size for segment in self._segments)
        self.payload_bytes = 0
        self._owes_ledger = False
        """Whether a segment was closed and the ledger has not been saved since."""
        self._reader = SegmentReader()
        self._unreadable: dict[Path, int] = {}
        """The times since which the disk cannot read a frame of a file."""
        for segment, records in zip(past.segments, past.records, strict=True):
            for record in records:
                self._frames[record.boot_id, record.seq] = SpooledFrame(
                    segment, record.seq, record.offset, record.length, record.checksum, record.spooled_ms
                )
                self.payload_bytes += record.length
        self._unsent: deque[FrameKey] = deque(self._frames)
        self.on_shed: Callable[[list[FrameKey]], None] = lambda _: None
        current = BootLedger(
            camera_id=camera_id,
            boot_id=1 + secrets.randbelow(BOOT_ID_LIMIT - 1),
            ordinal=1 + max((boot.ordinal for boot in past.boots), default=0),
            started_ms=unix_ms(),
            position=max(past.boots, key=lambda boot: boot.ordinal).position if past.boots else 0,
        )
        self.ledgers = Ledgers(folder, past.boots, current, self._clock, self._first_waiting)
        try:
            self._save_first(current)
        except BaseException:
            self._lock.release()
            raise
        for boot in past.boots:
            self.ledgers.forget_if_settled(boot.boot_id)

    @property
    def current(self) -> BootLedger:
        """The ledger of this process."""
        return self.ledgers.current

    @property
    def frames(self) -> int:
        """Frames published and not confirmed."""
        return len(self._frames)

    @property
    def position(self) -> int:
        """The position at which the source continues: one after that of the last frame ever appended."""
        return self.current.position

    def rewind(self) -> None:
        """Reset the position of the source to its beginning, for a new run. Durable on return."""
        self.position_lost = False
        if self.current.position:
            self.current.position = 0
            self.ledgers.save(self.current)

    @property
    def drained(self) -> bool:
        """Whether every frame and every boot's closing revision is confirmed."""
        settled = self.current.closed and not self._frames and next(self.ledgers.unsettled(), None) is None
        return settled and not self.ledgers.outdated()

    @property
    def has_room(self) -> bool:
        """Whether a frame of a usual size fits without shedding another."""
        return not self._frames or self.bytes < 3 * self._limits.max_bytes // 4

    def oldest_age_s(self) -> float:
        """Return the seconds for which the oldest frame has waited; 0 without a frame."""
        oldest = next(iter(self._frames.values()), None)
        return (self._clock.now_ms() - oldest.spooled_ms) / 1000 if oldest else 0.0

    def take_damage(self) -> Damage:
        """Return the damage found since the last call: frames, which are shed, and ledgers."""
        found, self._damage = self._damage, Damage()
        return found

    def append(self, payload: bytes, position: int, captured_ms: int, raw_bytes: int) -> int:
        """Publish the signed message of the frame `current.next`; returns that sequence number."""
        ledger, now_ms = self.current, self._clock.now_ms()
        segment, offset = self._write(position, captured_ms, now_ms, raw_bytes, payload)
        seq = ledger.next
        self._frames[ledger.boot_id, seq] = SpooledFrame(segment, seq, offset, len(payload), crc32(payload), now_ms)
        self._unsent.append((ledger.boot_id, seq))
        self.bytes += HEADER_BYTES + len(payload)
        self.payload_bytes += len(payload)
        ledger.next = seq + 1
        ledger.position = position + 1
        self._shed_to_fit()
        return seq

    def get(self, key: FrameKey) -> SpooledFrame | None:
        """Return the frame if it is unconfirmed, else None."""
        return self._frames.get(key)

    def read(self, frame: SpooledFrame) -> bytes:
        """Return the payload of an unconfirmed frame.

        Raises `StateError` if it cannot be read. A damaged frame is shed, and so are all frames of a missing file.
        """
        segment = frame.segment
        try:
            payload = self._reader.read(segment, frame.offset, frame.length)
        except UnreadableError:
            now_ms = self._clock.now_ms()
            if now_ms - self._unreadable.setdefault(segment.path, now_ms) >= _UNREADABLE_MS:
                self._shed_damaged(segment, (frame.seq,))  # the next ones of this file need no further minute
            raise
        self._unreadable.pop(segment.path, None)
        if payload is None:
            self._shed_damaged(segment, range(segment.first, segment.next))
            raise StateError(
                f"{segment.path} is missing: the file of the spool and its frames are lost. Check the disk."
            )
        if crc32(payload) != frame.checksum:
            self._shed_damaged(segment, (frame.seq,))
            raise StateError(
                f"spool file {segment.path}: expected frame {frame.seq} as it was written, got other bytes. Check "
                "the disk."
            )
        return payload

    def peek_unsent(self) -> FrameKey | None:
        """Return the oldest frame that `take_unsent` has not removed in this process."""
        while self._unsent and self._unsent[0] not in self._frames:
            self._unsent.popleft()
        return self._unsent[0] if self._unsent else None

    def take_unsent(self) -> None:
        """Remove the frame that `peek_unsent` returned from the queue of unsent frames."""
        self._unsent.popleft()

    def confirm(self, boot_id: int, ranges: Iterable[tuple[int, int]]) -> list[FrameKey]:
        """Free the waiting frames in these ranges (both ends included) and return them; ignore other numbers."""
        freed = []
        emptied = []
        for first, last in ranges:
            for seq in self._within(boot_id, first, last):
                frame = self._frames.pop((boot_id, seq), None)
                if frame is not None:
                    freed.append((boot_id, seq))
                    self.payload_bytes -= frame.length
                    frame.segment.waiting -= 1
                    if not frame.segment.waiting and not self._writer.writes(frame.segment):
                        emptied.append(frame.segment)
        for segment in emptied:
            with contextlib.suppress(StateError):  # the confirmation stays valid; the next start removes the file
                self._unlink(segment)
        if freed:
            self.ledgers.forget_if_settled(boot_id)
        return freed

    def finish(self) -> None:
        """Close the ledger of this boot; its closing revision is durable on return.

        After an error the boot is not closed, and `finish` may be called again.
        """
        if not self.current.closed:
            self._stop_writing()
            self.ledgers.close()

    def shed_old(self) -> None:
        """Shed the segments whose newest frame exceeds the age bound."""
        horizon = self._clock.now_ms() - self._limits.max_age_s * 1000
        while self._segments and self._segments[0].newest_ms < horizon:
            oldest = self._segments[0]
            if not oldest.waiting and self._writer.writes(oldest):
                return
            self._shed(oldest)

    def shed_unsendable(self, key: FrameKey) -> None:
        """Shed a waiting frame that cannot be sent, and the later frames that cannot be decoded without it."""
        boot_id, seq = key
        own, group = self._frames[key].segment, self._group(boot_id, seq)
        parts = {own: [seq]}
        for later, seqs in self._dependents(boot_id, group, seq + 1):
            parts.setdefault(later, []).extend(seqs)
        for segment, seqs in parts.items():
            self._enter_shed(segment, seqs)
        with contextlib.suppress(StateError):  # the ledger stays outdated and is saved again later
            self.ledgers.revise(self.ledgers.of(boot_id))
            for segment in parts:
                if not self._writer.writes(segment):
                    self._drop_if_done(segment)

    def shed_signed_otherwise(self, key: CameraKey) -> int:
        """Shed the frames that another key has signed, because no server accepts them. Returns their number.

        A boot signs all its frames with one key, so one frame of each boot is checked.
        """
        before = self.frames
        refused: dict[int, bool] = {}
        for segment in list(self._segments):
            if segment.boot_id not in refused:
                with contextlib.suppress(StateError):  # temporarily unreadable, or shed because of damage
                    refused[segment.boot_id] = not self._is_signed(segment, key)
            if refused.get(segment.boot_id) and segment.waiting:
                self._shed(segment)
        return before - self.frames

    def close(self) -> None:
        """Save the ledger and release the folder; unconfirmed frames stay on disk."""
        try:
            self._reader.close()
            self._stop_writing()
            self.ledgers.save(self.current)
        finally:
            self._lock.release()

    def _within(self, boot_id: int, first: int, last: int) -> Iterable[int]:
        if last - first <= len(self._frames):
            return range(first, last + 1)
        return [seq for boot, seq in self._frames if boot == boot_id and first <= seq <= last]

    def _first_waiting(self, ledger: BootLedger) -> int:
        """Return the first frame of a boot that is neither confirmed nor shed; `next` without one."""
        boot_id = ledger.boot_id
        waiting = (
            seq
            for segment in self._segments
            if segment.waiting and segment.boot_id == boot_id
            for seq in range(segment.first, segment.next)
            if (boot_id, seq) in self._frames
        )
        return next(waiting, ledger.next)

    def _is_signed(self, segment: Segment, key: CameraKey) -> bool:
        """Return whether `key` signed the first readable frame of a segment."""
        problem = StateError(f"spool file {segment.path}: expected a readable frame, got none. Check the disk.")
        for seq in range(segment.first, segment.next):
            if (frame := self._frames.get((segment.boot_id, seq))) is not None:
                try:
                    key.verify(Purpose.FRAME, self.read(frame))
                    return True
                except BadTagError:
                    return False
                except StateError as error:
                    problem = error
        raise problem

    def _save_first(self, ledger: BootLedger) -> None:
        """Save the ledger of this boot for the first time. On a full disk, shed old frames first."""
        while True:
            try:
                self.ledgers.save(ledger)
                return
            except DiskFullError:
                if not self._segments:
                    raise
                self._shed(self._segments[0])

    def _writable(self, payload_bytes: int, now_ms: int) -> Segment:
        """Return the segment for a record of this size: the last one, or a new one if that is full or old."""
        if not self._writer.has_room_for(payload_bytes, now_ms):
            if self._writer.writes_any:
                self._stop_writing()
                self._owes_ledger = True
            if self._owes_ledger:  # also of a segment whose ledger a full disk refused
                self.ledgers.save(self.current)
                self._owes_ledger = False
            begun = self._writer.begin(self.current.boot_id, self.current.next, now_ms)
            if self._segments and self._segments[-1].path == begun.path:
                # A segment without a frame, which failed writes left: `begin` has emptied its file.
                self.bytes -= self._segments.pop().size
            self._segments.append(begun)
        return self._segments[-1]

    def _write(
        self, position: int, captured_ms: int, now_ms: int, raw_bytes: int, payload: bytes
    ) -> tuple[Segment, int]:
        """Write one record, and return its segment and the offset of its payload. On a full disk, shed old frames
        first."""
        while True:
            try:
                segment = self._writable(len(payload), now_ms)
                return segment, self._writer.append(position, captured_ms, now_ms, raw_bytes, payload)
            except DiskFullError:
                older = len(self._segments) - self._writer.writes_any
                if not older:
                    raise
                self._shed(self._segments[0])
            except StateError:
                if self._segments and not self._writer.writes(self._segments[-1]):
                    self._drop_if_done(self._segments[-1])
                raise

    def _shed_to_fit(self) -> None:
        """Shed the oldest segments above the bound. A segment that stays is shed with the next frame.

        Raises nothing: the newest frame is published, and after an error the caller would publish it again.
        """
        while self.bytes > self._limits.max_bytes and len(self._segments) > 1:
            oldest = self._segments[0]
            with contextlib.suppress(StateError):  # its ledger stays outdated and is saved again later
                self._shed(oldest)
            if self._segments[0] is oldest:
                return

    def _shed(self, segment: Segment) -> None:
        """Shed the waiting frames of a segment, and remove its file."""
        if self._writer.writes(segment):
            self._stop_writing()
            if not segment.waiting:
                return
        ledger = self.ledgers.of(segment.boot_id)
        tail = self._tail(segment)
        if self._enter_shed(segment, range(segment.first, segment.next)):
            for later, seqs in tail:
                self._enter_shed(later, seqs)
            try:
                self.ledgers.revise(ledger)
            except StateError:
                # A full disk has no room for the ledger either: remove the segment first.
                self._unlink(segment)
                self.ledgers.revise(ledger)
        if segment in self._segments:
            self._unlink(segment)
        for later, _ in tail:
            if not self._writer.writes(later):
                self._drop_if_done(later)

    def _tail(self, segment: Segment) -> list[tuple[Segment, list[int]]]:
        """Return the later frames that depend on a waiting frame of this segment: they cannot be decoded without it."""
        waiting = (seq for seq in range(segment.next - 1, segment.first - 1, -1))
        broken = next((group for seq in waiting if (group := self._group(segment.boot_id, seq)) is not None), None)
        return self._dependents(segment.boot_id, broken, segment.next)

    def _dependents(self, boot_id: int, broken: int | None, start: int) -> list[tuple[Segment, list[int]]]:
        """Return the frames of the group `broken` from the number `start` on, by segment; none without a group."""
        found: list[tuple[Segment, list[int]]] = []
        if broken is None:
            return found
        for later in self._segments:
            if later.boot_id != boot_id or later.next <= start:
                continue
            seqs: list[int] = []
            found.append((later, seqs))
            for seq in range(max(later.first, start), later.next):
                group = self._group(boot_id, seq)
                if group == broken:
                    seqs.append(seq)
                elif group is not None:
                    return found
        return found

    def _group(self, boot_id: int, seq: int) -> int | None:
        """Return `group_of` for a frame; None for a frame that is not waiting or cannot be read."""
        frame = self._frames.get((boot_id, seq))
        if frame is None:
            return None
        try:
            payload = self._reader.read(frame.segment, frame.offset, frame.length)
        except StateError:
            return None
        return None if payload is None else group_of(payload)

    def _shed_damaged(self, segment: Segment, seqs: Iterable[int]) -> None:
        """Shed the waiting ones of these frames: their bytes are damaged or missing."""
        lost = self._enter_shed(segment, seqs)
        self._damage = self._damage._replace(frames=self._damage.frames + lost)
        _log.error("spool_frames_damaged", camera=self.camera_id, file=str(segment.path), frames=lost)
        with contextlib.suppress(StateError):  # the ledger stays outdated and is saved again later
            if self._writer.writes(segment):
                self._stop_writing()  # further writes to this file may be damaged too
            elif not segment.waiting:
                self._unlink(segment)
            self.ledgers.revise(self.ledgers.of(segment.boot_id))

    def _enter_shed(self, segment: Segment, seqs: Iterable[int]) -> int:
        """Enter the waiting ones of these frames as shed in the ledger, not yet durably, and return their number."""
        boot_id, ledger = segment.boot_id, self.ledgers.of(segment.boot_id)
        lost = [(boot_id, seq) for seq in seqs if (boot_id, seq) in self._frames]
        for key in lost:
            self.payload_bytes -= self._frames.pop(key).length
            ledger.shed.add(key[1])
        segment.waiting -= len(lost)
        if lost:
            self.peek_unsent()  # removes shed frames from the queue, which would otherwise grow while nothing is sent
            self.on_shed(lost)
        return len(lost)

    def _unlink(self, segment: Segment) -> None:
        self._segments.remove(segment)
        self._unreadable.pop(segment.path, None)
        self.bytes -= segment.size
        try:
            self._reader.forget(segment)
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(
                f"spool file {segment.path}: expected a file that can be removed, got {error.strerror}. Check the disk."
            ) from None

    def _stop_writing(self) -> None:
        """End the last segment, and remove it if no frame waits in it."""
        size = self._segments[-1].size if self._segments else 0
        last = self._writer.end()
        if last is not None:
            self.bytes += last.size - size
            self._drop_if_done(last)

    def _drop_if_done(self, segment: Segment) -> None:
        if not segment.waiting:
            self.ledgers.save(self.current)
            self._unlink(segment)
