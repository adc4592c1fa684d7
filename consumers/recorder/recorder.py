"""The recorder: it writes verdicts, events and dead letters from Kafka to the database, exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry

from consumers.cameras.cache import CameraCache
from consumers.cameras.camera import Camera
from consumers.cameras.saved import CameraStates, SavedState, read_states
from consumers.cameras.snapshots import SAVED_AT_ONCE, Snapshots
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.database.console_store import read_forgotten
from consumers.database.damage import reason, set_aside
from consumers.database.engine import open_engine
from consumers.database.history import MINUTE_MS, count_minutes
from consumers.database.thread import DatabaseCorruptError, DatabaseThread, Stopped
from consumers.evidence.probe_shares import CommandedShare, ProbePlanner, load_commanded, store_commanded
from consumers.recorder.alerts import PUBLISH_S, Alerts, Outbox, count_unpublished
from consumers.recorder.metrics import Meters, places_of
from consumers.recorder.purge import purge, purge_frames
from consumers.recorder.store import OffsetConflictError, Store
from consumers.records.batch import Partition, Record, Span, read, refusal
from consumers.records.log import Log, LogRewoundError
from consumers.records.membership import Membership, Reassigned
from consumers.records.progress import Progress
from consumers.settings import RecorderSettings
from schemas.batched import batched
from schemas.clock import monotonic_ms, unix_ms
from schemas.errors import MalformedError, RestartRequired, UserError, error_text
from schemas.identity import CameraId, Identity
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_BROKER_BYTES, MAX_CAMERAS
from schemas.metrics import MAX_CAMERA_SERIES
from schemas.pointillist_pb2 import SHED
from schemas.runtime import trace
from schemas.runtime.boot_rate import BootRate
from schemas.runtime.health import Health
from schemas.runtime.linger import Linger
from schemas.runtime.settled_clock import SettledClock
from schemas.runtime.worker_threads import WorkerThreads
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.sender import partition_of
from schemas.waiting import cancel, ends_before, wait_at_most

T = TypeVar("T")

_LETTERS_AT_ONCE: Final = 200
"""Maximum dead letters in one transaction, so that verdicts do not wait long."""
_LETTER_FETCH_BYTES: Final = 2**20
BURST_BOOTS: Final = 1024
"""Maximum boots of a camera at once: more than the bridges admit for a camera that restarts often."""
_TICK_S: Final = 1.0
_PURGE_S: Final = 5.0
_MORE_S: Final = 0.05
"""Seconds between two purge steps while more is left to purge."""
_AGREEING_MINUTES: Final = 50
"""Minutes with frames in the last hour that show, at the start, that the clock is right."""
_PICTURES_S: Final = 0.2
"""Seconds in each tick for checking previews. The rest is checked in a later tick."""
_PICTURES_AT_ONCE: Final = 8
_STRAINED_S: Final = 10.0
"""Seconds after a probe skipped for lack of time during which the processors count as strained."""

log = structlog.get_logger()


def _examine(pictures: Sequence[tuple[Camera, bytes]]) -> None:
    now_ms = monotonic_ms()
    for camera, jpeg in pictures:
        camera.health.update(jpeg, now_ms)


def letters_group(group: str) -> str:
    """Return the group in which recorders of `group` share dead letters."""
    return f"{group}.letters"


async def run_recorder(
    settings: RecorderSettings,
    keys: KeyRing,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
) -> None:
    """Record until `stop` is set. Records read from Kafka are then committed or left for the next start.

    Messages of cameras are verified under `keys`, and requests to cameras are signed.

    Brokers and database may be unreachable at any time. The recorder then waits, and reads nothing from Kafka that it
    cannot write. Raises `UserError` for an invalid setting. Raises `RestartRequired` after it has set a damaged SQLite
    file aside: the next start creates a new one from the records in Kafka.
    """
    recorder = Recorder(settings, keys, registry, health, stop)
    try:
        await recorder.run()
    except Stopped:
        log.info("recorder_stopped_waiting")
    except DatabaseCorruptError as error:
        recorder.close()
        aside = set_aside(settings.database, unix_ms())
        raise RestartRequired(
            f"the database is damaged ({error}) and was set aside as {aside}; a new one is filled from Kafka"
        ) from None
    finally:
        recorder.close()


class Recorder:
    """One recorder. All database work runs in its single database thread."""

    def __init__(
        self,
        settings: RecorderSettings,
        keys: KeyRing,
        registry: CollectorRegistry,
        health: Health,
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._health = health
        self._stop = stop
        health.set("kafka", False, "not connected yet")
        self._engine = open_engine(settings.database, writes=True)
        self._database = DatabaseThread(self._engine, stop, health, (OffsetConflictError,))
        self._store = Store(self._engine, settings, keys.previews)
        self._snapshots = Snapshots(self._engine, settings.bounds.strangers)
        self._states = CameraStates(self._engine, MAX_CAMERAS + settings.bounds.strangers)
        self._run_in_picture_thread = WorkerThreads(1, "pictures")
        self._meters = Meters(registry, places_of(settings))
        self._cameras = CameraCache(settings)
        # Letters have their own task: strangers can send many, which must not delay verdicts.
        verdicts, damaged = (settings.verdicts_topic, settings.events_topic), self._meters.kafka_damaged.inc
        group, session_s = settings.group, settings.session_timeout_s
        self._log = Log(settings, verdicts, MAX_BROKER_BYTES, Membership(group, session_s), damaged)
        member = Membership(None if group is None else letters_group(group), session_s)
        self._letters = Log(settings, (settings.dead_letters_topic,), _LETTER_FETCH_BYTES, member, damaged)
        self._progress = Progress(settings.kafka)
        self._outbox = Outbox(settings.kafka, settings.alerts_topic, settings.events_topic, keys)
        self._probing = ProbePlanner(settings.probes)
        self._plan_due = asyncio.Event()
        self._planning = asyncio.Lock()
        self._strained_until_s = 0.0
        self._alerts = Alerts(self._outbox, self._engine, self._database)
        self._age_clock = SettledClock()
        self._has_excess = False
        """Whether the last step of the purge left more to purge."""
        self._judged: dict[str, tuple[SavedState, int]] = {}
        """States of cameras to save, see `CameraCache.judge`."""
        self._offsets: dict[Partition, int] = {}
        self._boots = BootRate(BURST_BOOTS)
        self._linger = Linger(settings.linger_ms / 1000)

    async def run(self) -> None:
        """Run all tasks until `stop` is set."""
        await self._database.run(self._store.prepare)
        if await self._database.run(self._clock_agrees):
            self._age_clock.trust()
        self._probing.commanded = await self._database.run(self._commanded)
        if self._settings.group is None:  # a group has assigned no partitions yet
            self._cameras.restore(await self._database.run(self._restore))
        self._alerts.due.set()
        other = [
            asyncio.create_task(self._alerts.publish(), name="alerts"),
            asyncio.create_task(self._housekeep(), name="housekeeping"),
            asyncio.create_task(self._watch(), name="watching"),
            asyncio.create_task(self._plan_probes(), name="probes"),
        ]
        recording = [
            asyncio.create_task(self._record(self._log, self._settings.batch_records), name="recording"),
            asyncio.create_task(self._record(self._letters, _LETTERS_AT_ONCE), name="letters"),
        ]
        try:
            await asyncio.wait([*recording, *other], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._stop_tasks(recording, other)

    async def _stop_tasks(self, recording: Sequence[asyncio.Task[None]], other: Sequence[asyncio.Task[None]]) -> None:
        """Let recording finish its transaction, then cancel the other tasks. Raise the first error of any."""
        deadline = time.monotonic() + self._settings.shutdown_s
        failed = any(task.done() for task in other) or not self._stop.is_set()
        if failed:
            for task in recording:
                task.cancel()
        await asyncio.wait(recording, timeout=max(0.0, deadline - time.monotonic()))
        results = await cancel(*recording, *other)
        with contextlib.suppress(Exception):  # unpublished messages are published at the next start
            await asyncio.wait_for(self._alerts.publish_due(), max(0.1, deadline - time.monotonic()))
        await self._outbox.close()
        await self._progress.close()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, Stopped):
                raise result

    def close(self) -> None:
        """Close the database."""
        self._run_in_picture_thread.close()
        self._database.close()
        self._engine.dispose()

    def _clock_agrees(self) -> bool:
        """Return whether recorders before this one have recorded nearly all of the last hour by this clock.

        Without that, a recorder that restarts within each hour would never purge by age.
        """
        now_ms = unix_ms()
        with self._engine.begin() as connection:
            return count_minutes(connection, now_ms - 60 * MINUTE_MS, now_ms) >= _AGREEING_MINUTES

    def _restore(self) -> list[Camera]:
        found = self._snapshots.load()
        with self._engine.begin() as connection:
            saved = {each.camera: each for each in read_states(connection)}
        for camera in found:
            if (known := saved.get(camera.name)) is not None:
                camera.judged, camera.judged_patience_s = known.judged, known.patience_s
                camera.since_ms = known.since_ms
        return found

    # Recording

    async def _record(self, source: Log, at_once: int) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._unless_stopped(asyncio.create_task(source.open()))
                while not self._stop.is_set():
                    await self._unless_stopped(asyncio.create_task(source.resume(self._claim)))
                    if self._log.is_open and self._letters.is_open:
                        self._health.set("kafka", True)
                    backoff.reset()
                    with contextlib.suppress(Reassigned):
                        await self._record_all(source, at_once)
            except (OffsetConflictError, LogRewoundError) as error:
                log.warning("reading_restarted", error=str(error))
            except (Stopped, DatabaseCorruptError, UserError):
                raise
            except Exception as error:  # any error of a broker that is unreachable
                self._health.set("kafka", False, error_text(error))
                log.warning("kafka_unavailable", error=error_text(error))
            finally:
                await source.close()
            if await backoff.wait(self._stop):
                raise Stopped

    async def _record_all(self, source: Log, at_once: int) -> None:
        """Write incoming records until `stop` is set. The next records are read while others are written."""

        def gather() -> asyncio.Task[list[Record]]:
            linger_s = self._linger.seconds(time.monotonic())
            return asyncio.create_task(source.gather(linger_s, at_once))

        gathering = gather()
        try:
            while not self._stop.is_set():
                records = await self._unless_stopped(gathering)
                gathering = gather()
                if records:
                    async with source.writing():
                        self._linger.begin(time.monotonic())
                        try:
                            await self._write(records)
                        finally:
                            self._linger.end(time.monotonic())
        finally:
            await cancel(gathering)

    async def _claim(self, topics: Collection[str], spans: Mapping[Partition, Span]) -> Mapping[Partition, int]:
        """Claim partitions, and load the requests that other recorders sent to their cameras."""
        taken = await self._database.run(self._store.claim, topics, spans)
        if self._settings.group is not None and self._settings.verdicts_topic in topics:
            await self._load_cameras(taken)
        self._offsets = {place: at for place, at in self._offsets.items() if place[0] not in topics} | taken
        async with self._planning:
            self._probing.commanded = await self._database.run(self._commanded)
        self._alerts.due.set()
        return taken

    async def _load_cameras(self, taken: Mapping[Partition, int]) -> None:
        """Keep the cameras of the recorder's partitions only. Load those of partitions in which others have written."""
        topic = self._settings.verdicts_topic
        partitions = sorted(self._log.partitions_of(topic))
        held = {partition for of, partition in taken if of == topic}
        moved = {partition for (of, partition), at in taken.items() if self._offsets.get((of, partition)) != at}

        def is_of(camera: str, some: Collection[int]) -> bool:
            return partition_of(camera.encode(), partitions) in some

        if moved:
            found = await self._database.run(self._restore)
            self._cameras.restore(camera for camera in found if is_of(camera.name, moved & held))
        self._cameras.retain(lambda camera: is_of(camera, held))

    def _commanded(self) -> dict[str, CommandedShare]:
        with self._engine.begin() as connection:
            return load_commanded(connection)

    async def _unless_stopped(self, task: asyncio.Task[T]) -> T:
        if not await ends_before(task, self._stop):
            raise Stopped
        return task.result()

    async def _write(self, records: Sequence[Record]) -> None:
        """Commit all of `records`. A record that the database never accepts becomes a dead letter."""
        try:
            written, moved = await self._database.run(self._commit, records)
        except self._database.poison as error:
            if len(records) > 1:
                half = len(records) // 2
                await self._write(records[:half])
                await self._write(records[half:])
                return
            log.warning("record_rejected", topic=records[0].topic, offset=records[0].offset, error=reason(error))
            refused = MalformedError(f"database: expected a valid record, got {reason(error)}")
            written, moved = await self._database.run(self._commit, records, refused)
        self._offsets |= moved
        self._meters.count_transaction(written)
        self._cameras.apply_transaction(written)
        if written.alerts or written.sightings:
            self._alerts.due.set()
        if written.chains:
            self._plan_due.set()
        if any(row.strip == SHED for row in written.rows):
            self._strained_until_s = time.monotonic() + _STRAINED_S
        if self._has_excess and written.rows:
            await self._database.run(
                purge_frames, self._store, self._settings.bounds, len(written.rows), self._age_clock.now_ms()
            )

    def _commit(
        self, records: Sequence[Record], refused: MalformedError | None = None
    ) -> tuple[TransactionEffect, Mapping[Partition, int]]:
        now_ms = unix_ms()
        if refused is None:
            batch = read(records, self._settings, self._keys, now_ms, self._boots)
        else:
            batch = refusal(records[0], now_ms, refused, self._settings, self._keys)
        if trace.on():
            trace.stamp("recorded", *(Identity(CameraId(camera), boot, seq) for camera, boot, seq in batch.verdicts))
        written = self._store.write(batch, {partition: self._offsets.get(partition) for partition in batch.offsets})
        if trace.on():
            trace.stamp("committed", *(Identity(CameraId(camera), boot, seq) for camera, boot, seq in batch.verdicts))
        return written, {partition: following for partition, (_, following) in batch.offsets.items()}

    # Other tasks

    async def _plan_probes(self) -> None:
        while True:
            await wait_at_most(self._plan_due, _TICK_S)
            self._plan_due.clear()
            now_ms = unix_ms()
            now_s = time.monotonic()
            strained = now_s < self._strained_until_s
            for each in self._cameras.pop_probe_changes(monotonic_ms()):
                if isinstance(each, str):
                    self._probing.remove(each)
                else:
                    self._probing.observe(each)
            async with self._planning:
                changes = self._probing.changes(now_s, now_ms, strained=strained)
                if not changes:
                    continue
                # Stored first: a commanded camera must return to its own setting even if this process dies.
                await self._database.run(store_commanded, self._engine, self._probing.remember(changes))
            requests = [(each.camera, each.request) for each in changes if each.request is not None]
            try:
                await asyncio.wait_for(self._outbox.request(requests), PUBLISH_S)
            except Exception as error:  # the plan requests it again after any Kafka error
                log.warning("requests_not_published", error=error_text(error))

    async def _housekeep(self) -> None:
        purge_at = time.monotonic()
        while True:
            await self._save_cameras()
            await asyncio.gather(
                self._log.commit(self._offsets),
                self._letters.commit(self._offsets),
                self._progress.commit(self._log.committable(self._offsets) | self._letters.committable(self._offsets)),
            )
            await self._database.run(self._store.tend_sightings)
            read_on = await self._database.run(self._store.read_on)
            self._cameras.apply_evidence(read_on)
            if read_on.alerts:
                self._alerts.due.set()
                self._meters.count_alerts(read_on.alerts)
            if time.monotonic() >= purge_at:
                await self._purge()
                purge_at = time.monotonic() + (0 if self._has_excess else _PURGE_S)
            await asyncio.sleep(_MORE_S if self._has_excess else _TICK_S)

    async def _purge(self) -> None:
        """Take one step of the purge, and show the sizes that are left."""
        now_ms, bounds = self._age_clock.now_ms(), self._settings.bounds
        self._has_excess = await self._database.run(purge, self._store, bounds, now_ms)
        await self._database.run(self._snapshots.purge)
        await self._database.run(self._states.purge)
        if not self._has_excess:
            await self._read_removed()
        self._meters.show_stores(await self._database.run(self._store.bytes_held))
        waiting = await self._database.run(count_unpublished, self._engine)
        self._meters.unpublished.set(waiting)
        if waiting:
            self._alerts.due.set()

    async def _watch(self) -> None:
        """Show the cameras and the lag, each second, also while the database is unreachable."""
        while True:
            await self._examine_pictures()
            self._judge_cameras()
            now_ms = monotonic_ms()
            shown = self._cameras.for_metrics(MAX_CAMERA_SERIES, now_ms)
            self._meters.show_cameras(shown, self._cameras.worst(MAX_CAMERA_SERIES), now_ms)
            await self._ask_kafka()
            await asyncio.sleep(_TICK_S)

    async def _examine_pictures(self) -> None:
        """Check previews that arrived since the last call, as many as fit into the time limit."""
        end_s = time.monotonic() + _PICTURES_S
        while time.monotonic() < end_s and (some := self._cameras.pop_previews(_PICTURES_AT_ONCE)):
            await self._run_in_picture_thread(_examine, some)
            self._cameras.mark_unjudged(camera for camera, _ in some)

    def _judge_cameras(self) -> None:
        """Compute the states of changed cameras. Housekeeping saves those that differ."""
        self._cameras.revoke(self._keys.accepted_from)
        for saved, known_to_ms in self._cameras.judge(monotonic_ms(), unix_ms()):
            self._judged[saved.camera] = saved, known_to_ms

    async def _save_cameras(self) -> None:
        judged, self._judged = list(self._judged.values()), {}
        for some in batched(judged, SAVED_AT_ONCE):
            await self._database.run(self._states.save, some)
        changed, left_from_ms = self._cameras.unsaved(SAVED_AT_ONCE)
        if changed:
            await self._database.run(self._snapshots.save, changed, left_from_ms)

    async def _read_removed(self) -> None:
        """Read which cameras people have removed. While the console's database is unreachable, the last result holds.

        That database may be another one, for which the thread of the recorder's database must not wait.
        """
        store = self._settings.console_store
        if store and (removed := await asyncio.to_thread(read_forgotten, store)):
            self._cameras.remove(removed)

    async def _ask_kafka(self) -> None:
        self._meters.replicas_missing.set(self._log.replicas_missing() + self._letters.replicas_missing())
        try:
            self._meters.lag.set(await self._log.lag() + await self._letters.lag())
        except Exception as error:  # any error means that Kafka does not respond
            self._health.set("kafka", False, error_text(error))
        else:
            if self._log.is_open and self._letters.is_open:
                self._health.set("kafka", True)
