"""Confirmations to the cameras: the frames and ledgers that Kafka has acknowledged, which their spools may free.

A frame that Kafka cannot store is not confirmed. A refusal asks its camera to shed it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from schemas.clock import unix_ms
from schemas.errors import RevokedKeyError, TooLargeError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Confirm, DeadLetter, Range, Refusal
from schemas.ranges import RangeSet
from schemas.topics import Channel, mqtt_topic

MAX_RANGES: Final = 256
"""Maximum number in one message, which then has at most about 5 KiB."""
MAX_HELD: Final = 70_000
"""Maximum number of pending confirmations per camera, above the largest window of an honest one. The camera sends the
frames of dropped ones again."""
_OF_BOOT: Final = 16
"""Number of confirmations that take as much memory as a boot."""

Boot: TypeAlias = tuple[CameraId, int, int]


class Receipt(NamedTuple):
    """The fields that confirm one record: the `seq` of a frame, or the revision of a ledger (`seq` −1)."""

    camera_id: CameraId
    boot_id: int
    key_generation: int
    seq: int
    revision: int = 0


class Confirmations:
    """Collects receipts until the next interval. Bounded by what was in flight to Kafka, and of cameras that are held
    back by `MAX_HELD` for each."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._frames: dict[Boot, array[int]] = {}
        self._revisions: dict[Boot, int] = {}
        self._held: Counter[CameraId] = Counter()

    def add(self, receipt: Receipt) -> None:
        """Record that Kafka has acknowledged the record of this receipt."""
        boot = receipt[:3]
        seqs = self._frames.get(boot)
        if seqs is None:
            seqs = self._frames[boot] = array("Q")
        if receipt.seq >= 0:
            seqs.append(receipt.seq)
        else:
            self._revisions[boot] = max(receipt.revision, self._revisions.get(boot, 0))

    def drain(self, holds: Callable[[CameraId], bool] = lambda _: False) -> list[tuple[str, bytes]]:
        """Return and remove the due confirmations, as MQTT topic and signed payload. Confirmations of cameras that it
        `holds` back remain."""
        messages = []
        held: dict[Boot, array[int]] = {}
        self._held.clear()
        for boot, seqs in self._frames.items():
            camera_id, boot_id, generation = boot
            if holds(camera_id):
                # A boot counts too: a client with a key could use another boot for each frame.
                room = MAX_HELD - self._held[camera_id] - _OF_BOOT
                if room >= 0:
                    if len(seqs) > room:  # a camera that connects again sends its window again
                        seqs = array("Q", sorted(set(seqs))[:room])
                    held[boot] = seqs
                    self._held[camera_id] += _OF_BOOT + len(seqs)
                continue
            try:
                key = self._keys.key(camera_id, generation)
            except RevokedKeyError:
                continue  # revoked since the frame came: the camera may read nothing any more
            topic = mqtt_topic(camera_id, Channel.CONFIRM)
            ranges = (Range(first=first, last=last) for first, last in RangeSet.of(seqs).ranges())
            revision = self._revisions.get(boot, 0)
            while (part := list(islice(ranges, MAX_RANGES))) or revision:
                confirm = Confirm(boot_id=boot_id, ranges=part, ledger_revision=revision)
                messages.append((topic, sign_message(key, confirm)))
                revision = 0
        self._frames = held
        self._revisions = {boot: revision for boot, revision in self._revisions.items() if boot in held}
        return messages

    @property
    def held(self) -> int:
        """Return the number of cameras whose confirmations the last `drain` has held back."""
        return len(self._held)


def refusal_of(receipt: Receipt, letter: DeadLetter, keys: KeyRing) -> tuple[str, bytes] | None:
    """Return the request to shed a frame that is too large for Kafka, as MQTT topic and signed payload; None for a
    camera whose key is revoked.

    No confirmation, because a bridge has no key to sign a dead letter with the frame's identity: the frame would count
    as lost.
    """
    try:
        key = keys.key(receipt.camera_id, receipt.key_generation)
    except RevokedKeyError:
        return None
    refusal = Refusal(
        boot_id=receipt.boot_id,
        seq=receipt.seq,
        reason=TooLargeError.reason,
        detail=(
            f"{letter.error}. Set a smaller size for the camera, or a higher crf under the profile video, or raise "
            "max.message.bytes of the topic."
        ),
        refused_ms=unix_ms(),
    )
    return mqtt_topic(receipt.camera_id, Channel.REFUSAL), sign_message(key, refusal)
