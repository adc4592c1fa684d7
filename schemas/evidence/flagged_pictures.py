"""Pictures of quarantined frames, sealed with the key to pictures for people.

A quarantine holds files by the names of frames, `{site}/{camera}/{boot:016x}-{seq}`, with an ending.
"""

from __future__ import annotations

import re
from typing import Final

from schemas.errors import MalformedError
from schemas.identity import CameraId, Identity
from schemas.keys.sealing import PreviewBox

SEALED: Final = ".png.sealed"
"""Ending of a picture: a sealed PNG. Kept clips and frames to label, in the same store, end otherwise."""
PLAIN: Final = ".png"
"""Ending of a picture that an earlier release wrote without a seal."""
FACTS: Final = ".json"
"""Ending of the facts of a frame's verdict."""
_KIND: Final = "quarantine"
"""Kind of the sealed files, which no later release can change."""
_NAME: Final = re.compile(r"([^/]+/[^/]+)/([0-9a-f]{16})-([0-9]+)")


def seal_flagged(png: bytes, name: str, box: PreviewBox) -> bytes:
    """Return the content of the sealed file of the frame `name`; `MalformedError` if it is no name of a frame."""
    return box.seal(png, _identity_of(name), _KIND)


def open_flagged(sealed: bytes, name: str, box: PreviewBox) -> bytes:
    """Return the PNG in the sealed file of the frame `name`.

    Raises MalformedError if the file is damaged, belongs to another frame or is sealed under another key.
    """
    if not sealed:
        raise MalformedError(f"expected the sealed frame {name}, got an empty file")
    return box.open(sealed, _identity_of(name), _KIND)


def _identity_of(name: str) -> Identity:
    found = _NAME.fullmatch(name)
    if found is None:
        raise MalformedError(f"expected the name site/camera/boot-number of a frame, got {name[-200:]!r}")
    return Identity(CameraId(found[1]), int(found[2], 16), int(found[3]))
