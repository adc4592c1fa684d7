"""CPU time of a frame under `video` in the processor, by its parts, without brokers:
`python -m benchmarks.speed.frame_parts [--json FILE]`.

Four cameras of 640×480 encode a sample video at r = .25. Their messages pass the steps of a processor, from the record
to the signed verdict, before a network of MobileNetV3-small's shape at 224×224. Kafka's client is left out. The frames
come one at a time, `--apart` milliseconds after each other: the caches are as cold, and the threads wake up as often,
as live.

`cpu_ms` holds the CPU milliseconds of a frame by thread: `loop` is the event loop's, `device` the network's, `lane` the
one that waits for the decoding process, and `decoder` that process. `network` is the network alone, on the same thread
between the frames, and `stages` the steps on the device thread. `ratio` is the sum of the threads ÷ `network`.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import psutil
import torch
from prometheus_client import CollectorRegistry

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.scale.large_camera import write_footage
from benchmarks.speed.own_networks import random_bundle
from processors.arrivals.partitions import PartitionTracker
from processors.device.loaded_model import LoadedModel, load_model
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Delivered, Emitter
from processors.results.records import OutgoingRecord
from processors.settings import ProcessorSettings
from processors.steps.chain import Chain, build_chain
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from producers.video.group import GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import dropped_per_block
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import VIDEO
from schemas.runtime.memory import collect_seldom, keep_freed
from schemas.waiting import cancel

SECRET: Final = b"a secret for measuring"
FPS: Final = 5.0
DROP: Final = 0.25
WARM: Final = 20
"""Frames before the measurement: masks, decoders and kernels are made then."""


class _Record:
    """A Kafka record of the frames topic."""

    def __init__(self, offset: int, camera: str, value: bytes) -> None:
        self.topic, self.partition, self.offset = "frames", 0, offset
        self.key, self.value, self.headers = camera.encode(), value, ()
        self.timestamp = 0


class _Accepting:
    """A Kafka that holds each record at once."""

    def __init__(self) -> None:
        self.count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, topic: str, records: Sequence[OutgoingRecord], delivered: Delivered) -> None:
        for record in records:
            self.count += 1
            delivered(record)

    def post(self, topic: str, records: Sequence[OutgoingRecord], delivered: Delivered | None = None) -> None:
        if records:
            raise RuntimeError(f"expected verdicts, got {len(records)} records for {topic}")

    def track(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """Nothing is under way."""


def records(folder: Path, cameras: int, frames: int, size: tuple[int, int]) -> Iterator[_Record]:
    """Yield the messages of cameras in turn, as records of one partition."""
    footage = write_footage(folder / "footage.mp4", FPS, *size)
    keys = KeyRing(SECRET)
    names = [CameraId(f"bench/cam-{index}") for index in range(cameras)]
    encoders = [GroupEncoder(keys.key(name, 0), VideoSettings(), FPS) for name in names]
    source = open_source(SourceSettings(kind="video", file=footage, loop=True))
    encoding = Encoding(dropped_per_block(DROP), 0.0, VIDEO)
    for seq, captured in enumerate(islice(iter(source.read, None), -(-frames // cameras))):
        for index, (name, encoder) in enumerate(zip(names, encoders, strict=True)):
            message = encoder.encode(captured.picture, 1, seq, round(1000 * seq / FPS), encoding)
            yield _Record(seq * cameras + index, name, message)
    source.close()


class _Threads:
    """CPU seconds of the processor's threads and of its decoding process."""

    def __init__(self) -> None:
        self._clocks = {"loop": time.CLOCK_THREAD_CPUTIME_ID}
        for thread in threading.enumerate():
            for prefix, name in (("device", "device"), ("decoding", "lane"), ("pictures", "pictures")):
                if thread.name.startswith(prefix) and thread.ident is not None:
                    self._clocks[name] = time.pthread_getcpuclockid(thread.ident)
        self._children = psutil.Process().children()

    def seconds(self) -> dict[str, float]:
        found = {name: time.clock_gettime(clock) for name, clock in self._clocks.items()}
        found["all"] = time.process_time()
        return found | {"decoder": sum(sum(each.cpu_times()[:2]) for each in self._children)}


def _stages(metrics: CollectorRegistry) -> dict[str, float]:
    return {
        sample.labels["stage"]: sample.value
        for family in metrics.collect()
        if family.name == "pointillist_stage_seconds"
        for sample in family.samples
        if sample.name.endswith("_sum")
    }


async def measured(folder: Path, arguments: Any) -> dict[str, Any]:
    """Pass the frames through the steps, and return the CPU time of a frame by parts."""
    settings = ProcessorSettings(
        kafka="localhost:1", bundle=random_bundle(folder / "bundle", "mobilenet_v3_small"), threads=1,
        backend=arguments.backend, precision=arguments.precision,
        preview_interval_s=arguments.preview_s,
    )  # fmt: skip
    registry = CollectorRegistry()
    metrics = ProcessorMetrics(registry)
    loaded = await load_model(settings, metrics, settings.bundle)
    tracker, accepting = PartitionTracker(settings), _Accepting()
    chain = build_chain(settings, KeyRing(SECRET), loaded, tracker, cast(Emitter, accepting), metrics)
    turns = asyncio.create_task(chain.device.run())
    count = arguments.frames
    given = list(records(folder, arguments.cameras, WARM + count, arguments.size))[: WARM + count]
    collect_seldom()
    apart_s = arguments.apart / 1000
    for record in given[:WARM]:
        await _one(chain, tracker, record)
    threads, networks = _Threads(), [await _network_s(loaded) for _ in range(WARM)]
    networks.clear()
    before, stages = threads.seconds(), _stages(registry)
    each = arguments.together
    for index in range(0, count, each):
        due = time.monotonic() + apart_s * each
        await _one(chain, tracker, *given[WARM + index : WARM + index + each])
        if index // each % 4 == 0:
            networks.append(await _network_s(loaded))
        if (left := due - time.monotonic()) > 0:
            await asyncio.sleep(left)
    after, staged = threads.seconds(), _stages(registry)
    await cancel(turns)
    await chain.close()
    spent_on_networks = sum(networks)
    spent = {name: 1000 * (after[name] - used) / count for name, used in before.items()}
    spent["device"] -= 1000 * spent_on_networks / count
    spent["all"] -= 1000 * spent_on_networks / count
    network = 1000 * statistics.median(networks)
    return {
        "runs": [" ".join(each) for each in loaded.runs],
        "frames": count,
        "bytes": sum(len(each.value) for each in given[WARM:]) / count,
        "ratio": (spent["all"] + spent["decoder"]) / network,
        "cpu_ms": spent,
        "network": network,
        "stages": {name: 1000 * (staged[name] - used) / count for name, used in stages.items() if staged[name] > used},
    }


async def _one(chain: Chain, tracker: PartitionTracker, *records: _Record) -> None:
    chain.accept({cast(Any, ("frames", 0)): cast(Any, records)})
    await tracker.idle.wait()


async def _network_s(loaded: LoadedModel) -> float:
    def alone() -> float:
        bundle = loaded.executor.pipeline.bundle
        with torch.inference_mode():
            picture = torch.rand(1, 3, bundle.settings.input.height, bundle.settings.input.width)
            begun = time.thread_time()
            bundle.network(picture)
            return time.thread_time() - begun

    return await asyncio.get_running_loop().run_in_executor(loaded.thread, alone)


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(
        __doc__, json=Path, cameras=4, frames=400, apart=50.0, preview_s=1.0, together=1,
        size=Option([640, 480], "width and height", several=2),
        backend="auto", precision="auto",
    )  # fmt: skip
    torch.set_num_threads(1)
    keep_freed()
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        found = asyncio.run(measured(Path(folder), arguments))
    found |= {"machine": machine("torch", "openvino"), "command": arguments.command}
    report(found, arguments.json)


if __name__ == "__main__":
    main()
