"""A recorder's store and camera cache without Kafka, fed with generated records of Kafka's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consumers.cameras.cache import CameraCache
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.database.engine import open_engine
from consumers.database.queries import Records, open_records
from consumers.database.tables import frames
from consumers.recorder.store import Store
from consumers.records.batch import Partition, read
from consumers.settings import RecorderSettings
from schemas.clock import unix_ms
from schemas.keys.keys import KeyRing

NO_BROKER: Final = "127.0.0.1:1"
"""Address at which nobody answers."""
_TEXTS: Final = ("camera", "class_name", "model_id", "policy", "class_group", "best")


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


def settings_in(folder: Path, database: str | None = None, kafka: str = NO_BROKER) -> RecorderSettings:
    """Return the settings of a recorder with its files in `folder`, by default its SQLite database too."""
    database = database or f"sqlite:///{folder}/records.sqlite"
    return RecorderSettings(kafka=kafka, database=database, quarantine=str(folder / "quarantine"))


def open_store(settings: RecorderSettings, keys: KeyRing) -> Store:
    """Return a recorder's store, with the tables in its database."""
    with ExitStack() as stack:
        engine = open_engine(settings.database, writes=True)
        stack.callback(engine.dispose)
        store = Store(engine, settings, keys.previews)
        store.prepare()
        stack.pop_all()
    return store


def frame_values(fixed: Mapping[str, str]) -> str:
    """Return the SQL values of generated rows of `frames`: expressions by column, and for the others zeros."""
    return ", ".join(
        fixed.get(column.name)
        or ("''" if column.name in _TEXTS else "false" if column.type.python_type is bool else "0")
        for column in frames.columns
    )


class RecorderStore:
    """The store, the cache and the offsets of one recorder."""

    def __init__(self, settings: RecorderSettings, keys: KeyRing) -> None:
        self.settings = settings
        self.keys = keys
        self.cameras = CameraCache(settings)
        self.open()

    def open(self) -> None:
        """Start as a recorder does."""
        self.store = open_store(self.settings, self.keys)
        self.engine = self.store.engine
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
