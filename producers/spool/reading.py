"""Payloads read back from segment files. One segment is open for reading."""

from __future__ import annotations

import errno
import os

from producers.spool.files import OpenFile
from producers.spool.segment import Segment
from schemas.errors import StateError


class UnreadableError(StateError):
    """The disk cannot read these bytes: a fault that passes, or damage."""


class SegmentReader:
    """The reader of one spool's segments. It keeps one file, because frames are sent in order."""

    def __init__(self) -> None:
        self._open: tuple[Segment, OpenFile] | None = None

    def read(self, segment: Segment, offset: int, length: int) -> bytes | None:
        """Return `length` bytes at `offset`, fewer if the file is shorter; None if it is missing.

        Raises `UnreadableError` for an error of the disk, and `StateError` for another one: too many open files.
        """
        try:
            if self._open is None or self._open[0] is not segment:
                self.close()
                self._open = segment, OpenFile(segment.path, os.O_RDONLY)
            return os.pread(self._open[1].use(), length, offset)
        except FileNotFoundError:
            return None
        except OSError as error:
            kind = UnreadableError if error.errno == errno.EIO else StateError
            raise kind(
                f"spool file {segment.path}: expected a readable file, got {error.strerror}. Check the disk."
            ) from None

    def forget(self, segment: Segment) -> None:
        """Close this file if it is the open one."""
        if self._open is not None and self._open[0] is segment:
            self.close()

    def close(self) -> None:
        """Close the open file."""
        if self._open is not None:
            file = self._open[1]
            self._open = None
            file.close()
