"""Confirmations: what Kafka has, told to the cameras, which free their spools by it."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple, TypeAlias

from schemas.frame import sign_message
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import Confirm, Range
from schemas.ranges import RangeSet
from schemas.topics import Channel, mqtt_topic

MAX_RANGES = 256
"""In one message, which then has at most about 5 KiB."""

Boot: TypeAlias = tuple[CameraId, int, int]


class Receipt(NamedTuple):
    """What one record is confirmed by: a frame by its `seq`, a ledger (`seq` -1) by its revision."""

    camera_id: CameraId
    boot_id: int
    key_generation: int
    seq: int
    revision: int = 0


class Confirmations:
    """Collects receipts until the next interval. Bounded by what was in flight to Kafka."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._frames: dict[Boot, list[int]] = {}
        self._revisions: dict[Boot, int] = {}

    def add(self, receipt: Receipt) -> None:
        """Kafka has acknowledged the record of this receipt."""
        boot = receipt[:3]
        seqs = self._frames.get(boot)
        if seqs is None:
            seqs = self._frames[boot] = []
        if receipt.seq >= 0:
            seqs.append(receipt.seq)
        else:
            self._revisions[boot] = max(receipt.revision, self._revisions.get(boot, 0))

    def take(self) -> list[tuple[str, bytes]]:
        """MQTT topic and signed payload of each confirmation that is due; forgets them."""
        messages = []
        for boot, seqs in self._frames.items():
            camera_id, boot_id, generation = boot
            key = self._keys.key(camera_id, generation)
            topic = mqtt_topic(camera_id, Channel.CONFIRM)
            ranges = (Range(first=first, last=last) for first, last in RangeSet.of(seqs).ranges())
            revision = self._revisions.get(boot, 0)
            while (part := list(islice(ranges, MAX_RANGES))) or revision:
                confirm = Confirm(boot_id=boot_id, ranges=part, ledger_revision=revision)
                messages.append((topic, sign_message(key, confirm)))
                revision = 0
        self._frames.clear()
        self._revisions.clear()
        return messages
