"""Files of quarantined frames in a folder or an object store: sealed, or plain from an earlier release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import structlog

from schemas.errors import MalformedError
from schemas.evidence.flagged_pictures import PLAIN, SEALED, open_flagged
from schemas.keys.sealing import PreviewBox

log = structlog.get_logger()


class FlaggedFile(NamedTuple):
    """The file of one picture."""

    name: str
    """Name of its frame, `{site}/{camera}/{boot:016x}-{seq}`."""
    content: bytes
    is_sealed: bool

    def png(self, box: Callable[[], PreviewBox]) -> bytes:
        """Return the PNG; empty bytes if it is damaged or sealed under another key.

        `box` returns the cipher. It is called for a sealed file only: a plain one needs no key.
        """
        if not self.is_sealed:
            return self.content
        try:
            return open_flagged(self.content, self.name, box())
        except MalformedError as error:
            log.warning("flagged_frame_not_opened", name=self.name, error=str(error))
            return b""


def read_flagged(files: Any, path: str, name: str) -> FlaggedFile:
    """Read the picture of the frame `name`, whose files in the file system `files` begin with `path`.

    Raises FileNotFoundError if there is none, and the errors of the store.
    """
    try:
        return FlaggedFile(name, bytes(files.cat_file(path + SEALED)), is_sealed=True)
    except FileNotFoundError:
        return FlaggedFile(name, bytes(files.cat_file(path + PLAIN)), is_sealed=False)
