"""The unread frames in Kafka's logs, as sets of identities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import DecodeError

from consumers.records.batch import check_identity
from infra.audit.kafka_files import Data, committed_offsets, read_topic
from schemas.errors import WireError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import open_frame
from schemas.messages.server_messages import check_statement, open_statement
from schemas.pointillist_pb2 import DeadLetter, Verdict
from schemas.ranges import RangeSet
from schemas.topics import PROCESSORS_GROUP, KafkaTopic

Boot = tuple[CameraId, int]
"""Camera and boot."""


class AuditedRecord(Protocol):
    """The fields of a Kafka record that the audit reads, from a file or by the protocol."""

    @property
    def partition(self) -> int:
        """The number of the partition in its topic."""

    @property
    def offset(self) -> int:
        """The offset in its partition."""

    @property
    def key(self) -> bytes | None:
        """The camera's name."""

    @property
    def value(self) -> bytes | None:
        """The message."""


@dataclass
class KafkaSets:
    """The records that Kafka holds and their readers have not yet read."""

    frames: int = 0
    foreign: int = 0
    pending: dict[Boot, RangeSet] = field(default_factory=lambda: defaultdict(RangeSet))
    unread: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, data: Data, recorder: Mapping[tuple[str, int], int], keys: KeyRing) -> KafkaSets:
        """Read Kafka's `data`; `recorder` holds the recorder's next offsets."""
        sets = cls()
        committed = committed_offsets(data, PROCESSORS_GROUP, sets.unread)
        for record in read_topic(data, KafkaTopic.FRAMES, sets.unread):
            sets.frames += 1
            if record.offset >= committed.get((KafkaTopic.FRAMES, record.partition), 0):
                sets.add(KafkaTopic.FRAMES, record, keys)
        for topic in (KafkaTopic.VERDICTS, KafkaTopic.DEAD_LETTERS):
            for record in read_topic(data, topic, sets.unread):
                if record.offset >= recorder.get((topic, record.partition), 0):
                    sets.add(topic, record, keys)
        return sets

    def add(self, topic: KafkaTopic, record: AuditedRecord, keys: KeyRing) -> None:
        """Enter a record of `topic` that its reader has not yet read."""
        value = record.value
        if not value:
            return
        try:
            if topic is KafkaTopic.FRAMES:
                camera = _camera(record.key)
                try:
                    frame = open_frame(camera, value, keys)
                except WireError:
                    return  # the writer was no bridge; the processors will dead-letter it as foreign
                self.pending[camera, frame.boot_id].add(frame.seq)
                return
            if topic is KafkaTopic.VERDICTS:
                verdict = open_statement(Verdict, _camera(record.key), value, keys)
                self._add(_camera(record.key), verdict.boot_id, verdict.seq)
                return
            letter = DeadLetter.FromString(value)
            if letter.verified:
                check_statement(DeadLetter, letter.camera_id, value, keys)
                self._add(CameraId(letter.camera_id), letter.boot_id, letter.seq)
            else:
                self.foreign += 1
        except (DecodeError, WireError) as error:
            # The recorder will turn it into a dead letter without a verified identity.
            self.foreign += 1
            problem = str(error) if isinstance(error, WireError) else f"it is no message of {topic}"
            self.unread.append(f"Kafka {topic}-{record.partition}: the record at offset {record.offset}: {problem}")

    def _add(self, camera: CameraId, boot_id: int, seq: int) -> None:
        check_identity(boot_id, seq)
        self.pending[camera, boot_id].add(seq)


def _camera(key: bytes | None) -> CameraId:
    return CameraId((key or b"").decode(errors="replace"))
