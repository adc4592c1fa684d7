"""The audit: the fate of every published frame, from durable records only; see `consumers.conservation.balance`.

The records are the files of a state folder, or those of a deployment: Kafka by its protocol, the database by its URL.
The sources are read in the direction in which frames move: spools, Kafka's logs, database. A frame that moves on during
the audit of a running system is therefore seen at least once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from consumers.conservation.balance import BootAudit, Counts
from consumers.conservation.ledgers import SignedLedgers
from consumers.database.queries import CAMERAS_AT_ONCE, Records, open_records
from consumers.records.rows import SummedRow
from infra.audit.database import AuditedDatabase, Fates
from infra.audit.kafka_protocol import read_by_protocol
from infra.audit.kafka_sets import Boot, KafkaSets
from infra.local.kafka_quorum import kafka_data
from infra.local.role_table import no_state_folder
from infra.state_folder import Layout
from infra.state_folder.environment import Environment, role_roots
from producers.spool import SpoolBoot, scan_spool
from schemas.batched import batched
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role
from schemas.ranges import RangeSet
from schemas.transport.access import KafkaAddress

ReadKafka = Callable[[Mapping[tuple[str, int], int]], KafkaSets]
"""Reads Kafka; its argument holds the recorder's next offsets, by topic and partition."""


@dataclass(frozen=True)
class Audit:
    """The audit of one system."""

    boots: list[BootAudit]
    foreign: int
    kafka_frames: int
    """Records of the frames topic that Kafka still holds, resends included."""
    frames_from_ms: int | None
    """Publication time of the oldest boot that the records still cover."""
    ledgers_refused: list[Boot]
    """Ledgers in the database without a camera's signature: their claims are not counted."""
    unread: tuple[str, ...] = ()
    """Unreadable records, one line each; all else is counted."""
    summed: tuple[SummedRow, ...] = ()
    """Sums over the ledgers of cameras that have had more boots than the database keeps apart."""

    def counts(self, since_ms: int = 0) -> Counts:
        """Return the sums over the boots that started at `since_ms` or later."""
        boots = [boot for boot in self.boots if boot.started_ms >= since_ms]
        return Counts.of(boots, self.foreign, [each for each in self.summed if each.started_ms >= since_ms])


def unsettled(layout: Layout, since_ms: int = 0, of: Collection[CameraId] | None = None) -> int:
    """Count the frames that a run since then must still wait for.

    They are the undecided frames of its own boots and, once there are none, frames of earlier boots that Kafka holds: a
    camera may have sent those last. Other frames of earlier boots do not count, because they may never arrive. Kafka's
    logs are read only if frames of earlier boots are undecided.
    """
    found = audit(layout, read_kafka=False, of=of)
    own = found.counts(since_ms).undecided
    if own or not found.counts().undecided:
        return own
    return sum(len(boot.in_kafka) for boot in audit(layout, of=of).boots)


def audit(layout: Layout, *, read_kafka: bool = True, of: Collection[CameraId] | None = None) -> Audit:
    """Audit the state folder behind `layout`, running or not, from its files; `of` chooses cameras, None takes all.

    The result names whatever cannot be read in the database or in Kafka's logs, and counts the rest. Raises StateError
    when the folder holds no database, or one of another version. Raises SecretError without an auditor's secret, which
    verifies the signatures.
    """
    if not layout.database.is_file():
        if not (layout.folder / "roles.json").is_file():
            raise no_state_folder(layout.folder)
        raise StateError(
            f"{layout.database} is missing: expected the recorder's database. Start `pointillist up` once."
        )
    keys = auditor_keys(layout)

    def read(offsets: Mapping[tuple[str, int], int]) -> KafkaSets:
        return KafkaSets.read(kafka_data(layout.folder), offsets, keys) if read_kafka else KafkaSets()

    return _audit(layout.database_url, [layout.spool], read, keys, of)


def auditor_keys(layout: Layout | None) -> KeyRing:
    """Return the auditor's keys: from the state folder, else from the environment. Raises SecretError without either.

    Every generation is accepted: the system took frames signed under a key that was revoked later.
    """
    own = layout.roots(Role.AUDITOR) if layout is not None else None
    return KeyRing(own or role_roots(Environment(), Role.AUDITOR))


def audit_deployment(kafka: KafkaAddress, database: str, spools: Sequence[Path], keys: KeyRing) -> Audit:
    """Audit Kafka at `kafka` by its protocol, the `database` at that URL, and the reachable `spools`.

    Law and counts are those of the audit of files. For a boot without a spool, the camera's signed ledger states what
    was published. `keys` must accept every generation. Raises StateError for a database of another version, a server's
    database without tables, or a missing SQLite file. Raises BrokerError when the database or Kafka does not answer.
    """
    return _audit(database, spools, lambda offsets: asyncio.run(read_by_protocol(kafka, offsets, keys)), keys)


def _audit(
    database_url: str,
    folders: Sequence[Path],
    read_kafka: ReadKafka,
    keys: KeyRing,
    of: Collection[CameraId] | None = None,
) -> Audit:
    with open_records(database_url) as records:
        database = AuditedDatabase(database_url, records, keys)
        cameras = database.cameras() if of is None else sorted(of)
        early = [database.ledgers(some) for some in batched(cameras, CAMERAS_AT_ONCE)]
        spools = {(spool.camera_id, spool.boot_id): spool for folder in folders for spool in scan_spool(folder)}
        offsets = database.ask("the recorder's offsets", records.offsets) or {}
        kafka = read_kafka(offsets)
        found = _Settlement(database, records, spools, kafka)
        for some, signed in zip(batched(cameras, CAMERAS_AT_ONCE), early, strict=True):
            found.settle(some, signed)
        if of is None:
            seen = {*(camera for camera, _ in (*spools, *kafka.pending)), *database.cameras()}
            for some in batched(sorted(seen.difference(cameras)), CAMERAS_AT_ONCE):
                found.settle(some, SignedLedgers())
        summed = database.ask("the summed ledgers", records.summed_ledgers) or {}
        started = [boot.started_ms for boot in found.boots if boot.started_ms]
        started += [each.started_ms for each in summed.values()]
        return Audit(
            boots=sorted(found.boots, key=lambda b: (b.camera_id, b.started_ms, b.boot_id)),
            foreign=(database.ask("the foreign payloads", records.foreign_count) or 0) + kafka.foreign,
            kafka_frames=kafka.frames,
            frames_from_ms=min(started, default=None),
            ledgers_refused=[boot for signed in early for boot in signed.refused],
            unread=(*database.unread, *kafka.unread),
            summed=tuple(each for camera, each in summed.items() if of is None or camera in of),
        )


class _Settlement:
    """Settle the boots camera by camera, so that memory holds the claims of few cameras at a time."""

    def __init__(
        self, database: AuditedDatabase, records: Records, spools: Mapping[Boot, SpoolBoot], kafka: KafkaSets
    ) -> None:
        self.boots: list[BootAudit] = []
        self._database = database
        self._records = records
        self._spools: defaultdict[CameraId, dict[Boot, SpoolBoot]] = defaultdict(dict)
        for place, spool in spools.items():
            self._spools[place[0]][place] = spool
        self._pending: defaultdict[CameraId, dict[Boot, RangeSet]] = defaultdict(dict)
        for place, pending in kafka.pending.items():
            self._pending[place[0]][place] = pending

    def settle(self, cameras: Sequence[CameraId], signed: SignedLedgers) -> None:
        """Settle the boots of `cameras`, whose ledgers were read before Kafka."""
        database, records, early = self._database, self._records, signed.rows
        late = database.ledgers(cameras).rows
        spools = {place: spool for camera in cameras for place, spool in self._spools.pop(camera, {}).items()}
        waiting = {place: numbers for camera in cameras for place, numbers in self._pending.pop(camera, {}).items()}
        places: set[Boot] = {*early, *spools, *late, *waiting}
        boots = database.ask("the boots", lambda: records.boots(cameras)) or ()
        places |= {(CameraId(camera), boot) for camera, boot in boots}
        duplicates = database.ask("the duplicates", lambda: records.duplicates_by_boot(cameras)) or {}
        fates = Fates(database, records, cameras)
        for place in sorted(places):
            boot = BootAudit(*place)
            boot.take_ledger(early.get(place), late.get(place), spooled=place in spools)
            if place in spools:
                _settle_spool(boot, spools[place])
            boot.in_kafka.update(waiting.get(place, RangeSet()))
            boot.pending.update(boot.in_kafka)
            complete = fates.fill(boot)
            boot.duplicates = duplicates.get(place, 0)
            boot.settle(late[place].confirmed_to if place in late and place not in spools else None)
            if not complete:
                boot.lost, boot.unread = RangeSet(), boot.lost
            self.boots.append(boot)


def _settle_spool(boot: BootAudit, spool: SpoolBoot) -> None:
    boot.started_ms = boot.started_ms or spool.started_ms
    boot.published.add(0, spool.next - 1)
    boot.shed.update(spool.shed)
    boot.pending.update(spool.waiting)
    boot.frames_skipped = max(boot.frames_skipped, spool.frames_skipped)
    boot.frames_resent = max(boot.frames_resent, spool.frames_resent)
    boot.bytes_resent = max(boot.bytes_resent, spool.bytes_resent)
