"""A recorder's store and camera cache without Kafka, fed with generated records of Kafka's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consumers.cameras.cache import CameraCache
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.database.engine import open_engine
from consumers.database.queries import Records, open_records
from consumers.recorder.store import Store
from consumers.records.batch import Partition, read
from consumers.settings import RecorderSettings
from schemas.clock import unix_ms
from schemas.keys.keys import KeyRing


@dataclass(slots=True)
class MadeRecord:
    """The fields of a Kafka record that the recorder reads."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp: int = 0


class RecorderStore:
    """The store, the cache and the offsets of one recorder."""

    def __init__(self, settings: RecorderSettings, keys: KeyRing) -> None:
        self.settings = settings
        self.keys = keys
        self.cameras = CameraCache(settings)
        self.open()

    def open(self) -> None:
        """Start as a recorder does."""
        self.engine = open_engine(self.settings.database, writes=True)
        self.store = Store(self.engine, self.settings, self.keys.previews)
        self.store.prepare()
        with self.records() as records:
            self.offsets: dict[Partition, int] = records.offsets()

    def close(self) -> None:
        """Close the database without writing anything more, as a kill does."""
        self.engine.dispose()

    def records(self) -> Records:
        """Open the read side."""
        return open_records(self.settings.database)

    def feed(self, records: Sequence[MadeRecord]) -> TransactionEffect:
        """Record one transaction and update the cache."""
        batch = read(records, self.settings, self.keys, unix_ms())
        written = self.store.write(batch, {place: self.offsets.get(place) for place in batch.offsets})
        self.offsets |= {place: following for place, (_, following) in batch.offsets.items()}
        self.cameras.apply_transaction(written)
        return written
