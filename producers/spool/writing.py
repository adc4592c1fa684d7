"""Records appended to segment files. One segment is open for writing."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from producers.spool.files import OpenFile
from producers.spool.segment import HEADER_BYTES, Segment, segment_path, write_end, write_record
from schemas.errors import StateError

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(StateError):
    """The disk is full. The write may be repeated after other files were removed."""


class SegmentWriter:
    """Appends to a boot's newest segment until that is `segment_bytes` large or `segment_age_ms` of spool time old."""

    def __init__(self, folder: Path, segment_bytes: int, segment_age_ms: float) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segment_age_ms = segment_age_ms
        self._open: tuple[Segment, OpenFile] | None = None

    def writes(self, segment: Segment) -> bool:
        """Return whether this segment is the open one."""
        return self._open is not None and self._open[0] is segment

    @property
    def writes_any(self) -> bool:
        """Whether a segment is open."""
        return self._open is not None

    def has_room_for(self, payload_bytes: int, now_ms: int) -> bool:
        """Return whether a segment is open that is neither too full for such a record nor too old."""
        if self._open is None:
            return False
        segment, size = self._open[0], HEADER_BYTES + payload_bytes
        return segment.size + size <= self._segment_bytes and now_ms - segment.oldest_ms <= self._segment_age_ms

    def begin(self, boot_id: int, first: int, now_ms: int) -> Segment:
        """Open the segment that begins with the frame `first`, which is not published; none may be open.

        A file of that name is from a write that failed, and is emptied.
        """
        path = segment_path(self._folder, boot_id, first)
        file = OpenFile(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            file.use()
        except OSError as error:
            raise unwritable(self._folder, error.errno) from None
        segment = Segment(path, boot_id, first, first, oldest_ms=now_ms, newest_ms=now_ms)
        self._open = segment, file
        return segment

    def append(self, position: int, captured_ms: int, now_ms: int, raw_bytes: int, payload: bytes) -> int:
        """Write the next frame into the open segment, and return the offset of its payload.

        `now_ms` is spool time.

        After an error, no part of a record remains. Raises `DiskFullError`, or another `StateError`.
        """
        assert self._open is not None
        segment, file = self._open
        size = HEADER_BYTES + len(payload)
        try:
            fd = file.use()
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error is file.fault:
                self._close()  # the next frame begins a segment
            raise unwritable(self._folder, error.errno) from None
        try:
            boot_id, seq = segment.boot_id, segment.next
            written = write_record(fd, boot_id, seq, position, captured_ms, now_ms, raw_bytes, payload)
            problem = None if written == size else errno.ENOSPC
        except OSError as error:
            problem = error.errno
        if problem is not None:
            try:
                os.ftruncate(fd, segment.size)
            except OSError as error:
                self._close()  # a record after half of one would cost a search
                raise unwritable(self._folder, error.errno) from None
            raise unwritable(self._folder, problem)
        offset = segment.size + HEADER_BYTES
        segment.size += size
        segment.next += 1
        segment.waiting += 1
        segment.newest_ms = now_ms
        return offset

    def end(self) -> Segment | None:
        """Append the end record to the open segment, close the segment and return it; None without one."""
        if self._open is None:
            return None
        segment, file = self._open
        with contextlib.suppress(OSError):  # a full disk: the next start does it
            fd = file.use()
            written = write_end(fd, segment.boot_id, segment.next)
            if written == HEADER_BYTES:
                segment.size += written
            else:
                os.ftruncate(fd, segment.size)
        self._close()
        return segment

    def _close(self) -> None:
        assert self._open is not None
        (_, file), self._open = self._open, None
        try:
            file.close()
        except OSError as error:
            raise unwritable(self._folder, error.errno) from None


def unwritable(folder: Path, problem: int | None) -> StateError:
    """Return the error of a spool that cannot be written, by its `errno`."""
    kind = DiskFullError if problem in _DISK_FULL else StateError
    return kind(f"spool {folder}: expected a writable folder, got {os.strerror(problem or 0)}. Check the disk.")
