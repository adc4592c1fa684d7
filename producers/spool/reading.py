"""Payloads read back from segment files, with one file open at a time."""

from __future__ import annotations

import os

from producers.spool.segment import Segment
from schemas.errors import StateError


class SegmentReader:
    """Reads the segments of one spool: frames are sent in order, so the last file is mostly the next one."""

    def __init__(self) -> None:
        self._open: tuple[Segment, int] | None = None

    def read(self, segment: Segment, offset: int, length: int) -> bytes | None:
        """`length` bytes at `offset`, fewer when the file has become shorter; None when it is gone.

        Raises `StateError` when the system refuses: no more files may be open, or the medium fails.
        """
        try:
            if self._open is None or self._open[0] is not segment:
                self.close()
                self._open = segment, os.open(segment.path, os.O_RDONLY)
            return os.pread(self._open[1], length, offset)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(
                f"spool file {segment.path}: expected a readable file, got {error.strerror}. Check the disk."
            ) from None

    def forget(self, segment: Segment) -> None:
        """Close this file if it is the open one."""
        if self._open is not None and self._open[0] is segment:
            self.close()

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            fd = self._open[1]
            self._open = None
            os.close(fd)
