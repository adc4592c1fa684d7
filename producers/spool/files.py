"""Files that stay open between uses, within a number for the whole process.

A fleet whose frames wait has two files open for each camera, which can be more than the system allows. The file that
was not used for longest is then closed, and opened again when it is needed. For one thread.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final


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
        if fd is None:
            while self._fds and len(self._fds) >= self.limit:
                unused, _ = next(iter(self._fds.items()))
                with contextlib.suppress(OSError):
                    self.close(unused)
            fd = self._fds[file] = os.open(file.path, file.flags, 0o600)
        else:
            self._fds.move_to_end(file)
        return fd

    def close(self, file: OpenFile) -> None:
        """Close `file` if it is open. Raises OSError."""
        fd = self._fds.pop(file, None)
        if fd is not None:
            os.close(fd)


OPEN_FILES: Final = OpenFiles(512)
"""The open files of this process, which the system limits too. A fleet sets the number by that of its cameras."""


class OpenFile:
    """A file that is opened at its first use, and again when it was closed to make room for others."""

    def __init__(self, path: Path, flags: int) -> None:
        """`flags` are those of `os.open`. `O_CREAT` holds for the first use alone: a removed file is not made again."""
        self.path, self.flags = path, flags

    def use(self) -> int:
        """Return its descriptor, valid until another file is used. Raises OSError."""
        fd = OPEN_FILES.use(self)
        self.flags &= ~os.O_CREAT
        return fd

    def close(self) -> None:
        """Close it. Raises OSError."""
        OPEN_FILES.close(self)
