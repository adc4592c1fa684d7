"""Files that stay open between uses, within a number for the whole process.

A fleet whose frames wait has two files open for each camera, which can be more than the system allows. The file that
was not used for longest is then closed, and opened again at its next use. Not thread-safe.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE)


class OpenFiles:
    """The open files of a process, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._fds: OrderedDict[OpenFile, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._fds)

    def use(self, file: OpenFile) -> int:
        """Return the descriptor of `file`, opened if it is not. Raises OSError."""
        fd = self._fds.get(file)
        if fd is not None:
            self._fds.move_to_end(file)
            return fd
        if file.fault is not None:
            raise file.fault
        while self._fds and len(self._fds) >= self.limit:
            self._evict()
        while True:
            try:
                fd = self._fds[file] = os.open(file.path, file.flags, 0o600)
            except OSError as error:
                if error.errno not in _TOO_MANY or not self._fds:
                    raise
                self._evict()
            else:
                return fd

    def _evict(self) -> None:
        """Close the file that was not used for longest. An error is raised at its next use, and again by `close`."""
        unused = next(iter(self._fds))
        try:
            self.close(unused)
        except OSError as error:
            unused.fault = error

    def close(self, file: OpenFile) -> None:
        """Close `file` if it is open. Raises OSError, also that of an earlier close."""
        fault, file.fault = file.fault, None
        fd = self._fds.pop(file, None)
        if fd is not None:
            os.close(fd)
        if fault is not None:
            raise fault


OPEN_FILES: Final = OpenFiles(512)
"""The open files of this process. A fleet sets their limit by the number of its cameras."""


class OpenFile:
    """A file that is opened at its first use, and again when it was closed to make room for others."""

    def __init__(self, path: Path, flags: int) -> None:
        """`flags` are those of `os.open`. `O_CREAT` and `O_TRUNC` hold for the first use alone: a removed file
        is not made again, and no record is removed."""
        self.path, self.flags = path, flags
        self.fault: OSError | None = None
        """The error of a close that made room for other files: its last bytes may be lost."""

    def use(self) -> int:
        """Return its descriptor, valid until another file is used. Raises OSError."""
        fd = OPEN_FILES.use(self)
        self.flags &= ~(os.O_CREAT | os.O_TRUNC)
        return fd

    def close(self) -> None:
        """Close it. Raises OSError."""
        OPEN_FILES.close(self)
