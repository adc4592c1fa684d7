"""Sealing of frames, once for each place in the spool: no other bytes are ever written at that place.

A frame's place, boot and sequence number, is the nonce of its cipher. Two pictures sealed for one place would reveal
their difference to anyone who has both, on the wire, in a broker's memory or on a disk. Therefore a sealed frame that
the spool could not store is kept, even if a command changes the settings, and is stored before any other. A new process
has another boot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from producers.spool import FrameKey, Spool
from producers.video.group import GroupEncoder
from schemas.keys.keys import CameraKey
from schemas.messages.frame import Encoding, Truth, encode_frame
from schemas.pixels.packing import Picture
from schemas.pixels.planes import Planes, to_picture
from schemas.pointillist_pb2 import VIDEO


class _SealedFrame(NamedTuple):
    seq: int
    payload: bytes
    position: int
    captured_ms: int
    raw_bytes: int


class FrameSealer:
    """Seals the frames of one camera for their places in its spool, one at a time."""

    def __init__(
        self, key: CameraKey, spool: Spool, publish: Callable[[bytes, int, int, int], None], groups: GroupEncoder
    ) -> None:
        """`publish` appends a payload, with its position in the source, the time of its capture and its raw bytes.

        `groups` encodes frames of the profile `video`.
        """
        self._key = key
        self._spool = spool
        self._publish = publish
        self._groups = groups
        self._waiting: _SealedFrame | None = None

    @property
    def waits(self) -> bool:
        """Whether a sealed frame is not yet in the spool."""
        return self._waiting is not None

    def seal(
        self,
        picture: Picture | Planes,
        captured_ms: int,
        position: int,
        encoding: Encoding,
        truth: Truth | None = None,
        moving: int = 0,
        *,
        traced: bool = False,
    ) -> bytes:
        """Seal a `picture` (H, W, C) uint8, or planes, for the next place, and return the message; nothing may wait.

        `moving` is a box as `schemas.messages.moving` packs it.

        Raises `WireError` for a picture that no frame can hold, and `SourceError` if a video encoder fails.
        """
        if self._waiting is not None:
            raise RuntimeError(f"frame {self._waiting.seq} is sealed and waits for the spool")
        ledger = self._spool.current
        place = ledger.boot_id, ledger.next, captured_ms
        if encoding.profile == VIDEO:
            payload = self._groups.encode(picture, *place, encoding, truth, moving, traced=traced)
        else:
            self._groups.end()
            pixels = to_picture(picture) if isinstance(picture, Planes) else picture
            payload = encode_frame(self._key, *place, pixels, encoding, truth, moving, traced=traced)
        self._waiting = _SealedFrame(ledger.next, payload, position, captured_ms, picture.nbytes)
        return payload

    def request_key(self, wanted: FrameKey | None) -> None:
        """Make the next frame a key frame if `wanted` names the key frame of the open group."""
        if wanted is not None and wanted == self._groups.group:
            self._groups.end()

    def shed(self, keys: list[FrameKey]) -> None:
        """End the open group if one of its frames was shed: later ones could not be decoded."""
        group = self._groups.group
        if group is not None and any(boot == group[0] and seq >= group[1] for boot, seq in keys):
            self._groups.end()

    def close(self) -> None:
        """Release the video encoder."""
        self._groups.end()

    def append(self) -> None:
        """Append the waiting frame, if any; it remains waiting when that raises `StateError`."""
        sealed = self._waiting
        if sealed is None:
            return
        # The position may be higher already, if the last attempt failed after the append.
        if self._spool.current.next == sealed.seq:
            self._publish(sealed.payload, sealed.position, sealed.captured_ms, sealed.raw_bytes)
        self._waiting = None
