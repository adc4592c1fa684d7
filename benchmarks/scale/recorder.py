"""The recorder's throughput: `python -m benchmarks.scale.recorder --json FILE [--cameras 10000] [--verdicts 200000]`.

`holds`: verdicts of that many cameras are in Kafka, and a recorder in a separate process reads them all. The figures
are verdicts per second from its first to its last transaction, and CPU time per verdict. `--without-kafka` passes them
directly to its store and its cache, which suits a profiler.

`restart`: a database contains the cameras with `--boots` boots each, and as many cameras again that have been silent
since. The figures are the seconds until a new recorder has loaded its state, and its memory per camera.

Run nothing else on the machine meanwhile. `--json` is written at the end.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import structlog
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from benchmarks.harness.command_line import command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.recorder_store import MadeRecord, RecorderStore, settings_in
from benchmarks.harness.services import started
from consumers.cameras.snapshots import Snapshots
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.recorder.metrics import Meters, places_of
from consumers.recorder.recorder import run_recorder
from consumers.settings import RecorderSettings
from infra.local.kafka import Kafka
from infra.local.topics import create_topics, pointillist_topics
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.camera_status import turn
from schemas.messages.frame import sign_message
from schemas.messages.server_messages import sign_statement
from schemas.pointillist_pb2 import CHECKED, NOT_PROBED, ONLINE, RAW, Meta, Status, Verdict
from schemas.runtime.health import Health

SECRET = bytes(range(32))
PARTITIONS = 6
PROBES = 20
"""One in this many frames is checked by STRIP."""


def verdicts(cameras: int, count: int, boot: int, seed_seq: int = 0) -> Iterator[tuple[CameraId, Verdict]]:
    """Yield `count` verdicts, of the cameras in turn, as a processor makes them."""
    for number in range(count):
        camera, seq = number % cameras, seed_seq + number // cameras
        now_ms = unix_ms()
        probe = (camera + seq) % PROBES == 0
        yield (
            CameraId(f"local/cam-{camera}"),
            Verdict(
                boot_id=boot + camera,
                seq=seq,
                captured_ms=now_ms - 40,
                processed_ms=now_ms - 5,
                class_id=3,
                class_name="stop",
                confidence=0.93,
                model_id="scene@1-0123456789abcdef",
                policy="resize",
                truth=7,
                width=32,
                height=32,
                channels=3,
                dropped_per_block=16,
                whole=probe,
                frame_bytes=2344,
                pixel_bytes=2304,
                strip=CHECKED if probe else NOT_PROBED,
                entropy_bits=1.4 if probe else 0.0,
                threshold_bits=0.2 if probe else 0.0,
            ),
        )


class Direct(RecorderStore):
    """A recorder's store, cache and metrics without Kafka."""

    def __init__(self, folder: Path) -> None:
        super().__init__(settings_in(folder), KeyRing(SECRET))
        self.meters = Meters(CollectorRegistry(), places_of(self.settings))

    def restore(self) -> None:
        """Load the state as at the start of a recorder."""
        self.cameras.restore(Snapshots(self.engine, self.settings.bounds.strangers).load())

    def feed(self, records: Sequence[MadeRecord]) -> TransactionEffect:
        """Record one transaction, and update metrics and cache."""
        written = super().feed(records)
        self.meters.count_transaction(written)
        return written

    def batches(self, topic: str, messages: Iterator[tuple[CameraId, bytes, str]]) -> Iterator[list[MadeRecord]]:
        """Yield the messages as Kafka would return them, one transaction at a time."""
        start = self.offsets.get((topic, 0), 0)
        made = (
            MadeRecord(topic, 0, start + place, camera.encode(), value, [("ce_type", kind.encode())])
            for place, (camera, value, kind) in enumerate(messages)
        )
        while some := list(islice(made, self.settings.batch_records)):
            yield some


def direct(folder: Path, cameras: int, count: int) -> dict[str, float]:
    """Return verdicts per second and CPU time per verdict, without Kafka. The verdicts are made in advance."""
    recorder = Direct(folder)
    made = verdicts(cameras, count, 2**40)
    messages = ((camera, sign_statement(recorder.keys, camera, each), "Verdict") for camera, each in made)
    batches = list(recorder.batches(recorder.settings.verdicts_topic, messages))
    begun_s, used_s = time.perf_counter(), time.process_time()
    for batch in batches:
        recorder.feed(batch)
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - used_s
    recorder.close()
    return {"verdicts_per_s": count / wall_s, "cpu_us_per_verdict": 1e6 * cpu_s / count}


def _known(folder: Path, cameras: int, boots: int) -> None:
    """Create a database in `folder` with 2 × `cameras` cameras, half of them silent, and `boots` boots of each."""
    recorder = Direct(folder)
    keys = recorder.keys
    for boot in range(boots):
        of = 2 * cameras if boot == 0 else cameras
        given = verdicts(of, 2 * of, (boot + 1) << 40)
        made = ((camera, sign_statement(keys, camera, each), "Verdict") for camera, each in given)
        for batch in recorder.batches(recorder.settings.verdicts_topic, made):
            recorder.feed(batch)

    def announced() -> Iterator[tuple[CameraId, bytes, str]]:
        for number in range(cameras):
            camera = CameraId(f"local/cam-{number}")
            meta = Meta(
                boot_id=1,
                width=32,
                height=32,
                channels=3,
                frames_per_second=0.025,
                probe_share=0.05,
                dropped_per_block=16,
                profile=RAW,
                turn=turn(1, 1),
            )
            yield camera, sign_message(keys.current(camera), meta), "pointillist.v1.Meta"
            status = Status(state=ONLINE, boot_id=1, turn=turn(1, 2))
            yield camera, sign_message(keys.current(camera), status), "pointillist.v1.Status"

    for batch in recorder.batches(recorder.settings.events_topic, announced()):
        recorder.feed(batch)
    # The saved state is that of the last second's housekeeping: a killed recorder saves nothing more.
    shown = Snapshots(recorder.engine, recorder.settings.bounds.strangers)
    changed, left_from_ms = recorder.cameras.unsaved(2 * cameras)
    shown.save(changed, left_from_ms)
    recorder.close()


def _restart(folder: Path, report: Connection) -> None:
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    begun_s, used_s = time.perf_counter(), time.process_time()
    recorder = Direct(folder)
    recorder.restore()
    seconds, cpu_s = time.perf_counter() - begun_s, time.process_time() - used_s
    gc.collect()
    known = len(recorder.cameras.all())
    report.send({
        "restart_s": seconds,
        "restart_cpu_s": cpu_s,
        "cameras_at_hand": known,
        "bytes_per_camera": (process.memory_info().rss - before) / max(1, known),
    })  # fmt: skip


def restart(folder: Path, cameras: int, boots: int) -> dict[str, float]:
    """Return the time in which a recorder restores its cameras, in a separate process."""
    _known(folder, cameras, boots)
    found: dict[str, float] = _in_a_process(_restart, folder)
    return found


def _in_a_process(body: Any, *arguments: object) -> Any:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=body, args=(*arguments, there))
    process.start()
    there.close()  # so that a process that fails ends the wait for it
    found = here.recv()
    process.join()
    return found


def _take_all(folder: Path, kafka: str, count: int, report: Connection) -> None:
    """Run a recorder until it has recorded `count` verdicts."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    registry = CollectorRegistry()

    def recorded() -> float:
        return registry.get_sample_value("pointillist_recorded_frames_total", {"outcome": "recorded"}) or 0.0

    async def body() -> dict[str, float]:
        stop = asyncio.Event()
        settings = settings_in(folder, kafka=kafka)
        recording = asyncio.create_task(
            run_recorder(settings, KeyRing(SECRET), registry=registry, health=Health(), stop=stop)
        )
        while not (first := recorded()) and not recording.done():
            await asyncio.sleep(0.005)
        begun_s, used_s = time.perf_counter(), time.process_time()
        while recorded() < count and not recording.done():
            await asyncio.sleep(0.005)
        wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - used_s
        stop.set()
        await recording
        left = count - first
        return {"verdicts_per_s": left / wall_s, "cpu_us_per_verdict": 1e6 * cpu_s / left}

    report.send(asyncio.run(body()))


async def _publish(kafka: str, cameras: int, count: int) -> None:
    await create_topics(kafka, pointillist_topics(PARTITIONS))
    async with AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20, max_batch_size=2**19) as producer:
        topic, keys = RecorderSettings(kafka=kafka).verdicts_topic, KeyRing(SECRET)
        headers = [("ce_type", b"pointillist.v1.Verdict")]
        made = verdicts(cameras, count, 2**40)
        while some := list(islice(made, 5_000)):
            sent = [
                await producer.send(topic, sign_statement(keys, camera, verdict), key=camera.encode(), headers=headers)
                for camera, verdict in some
            ]
            await asyncio.gather(*sent)


def holds(folder: Path, cameras: int, count: int) -> dict[str, float]:
    """Measure the throughput through Kafka: everything that a recorder does."""
    with started(Kafka(folder)) as kafka:
        asyncio.run(_publish(kafka.bootstrap, cameras, count))
        found: dict[str, float] = _in_a_process(_take_all, folder, kafka.bootstrap, count)
        return found


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(__doc__, json=Path, cameras=10000, verdicts=200000, boots=4, without_kafka=False)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pointillist-recorder-") as folder:
        places = {name: Path(folder) / name for name in ("direct", "holds", "restart")}
        for place in places.values():
            place.mkdir()
        found["direct"] = direct(places["direct"], arguments.cameras, arguments.verdicts)
        if not arguments.without_kafka:
            found["holds"] = holds(places["holds"], arguments.cameras, arguments.verdicts)
        found["restart"] = restart(places["restart"], arguments.cameras, arguments.boots)
    report(
        {
            "cameras": arguments.cameras,
            "verdicts": arguments.verdicts,
            "boots": arguments.boots,
            **found,
            "machine": machine(),
            "command": arguments.command,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
