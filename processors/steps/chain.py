"""A frame's way through the processor: the steps in their order, and the factory that builds them.

| step | what it adds to the job | it waits |
| --- | --- | --- |
| `Validate` | camera, key, frame and shape, or an error | – |
| `Deduplicate` | the verdict of the first delivery, if the frame is a repeat | – |
| `AwaitKeyFrame` | the key frame that it depends on | for the key frame |
| `Decode` | the picture of a frame under `video` | for earlier frames of its group, and for its decoder |
| `Classify` | class, confidence, pictures for people, STRIP's input | for its batch and the device |
| `Strip` | STRIP's finding on a probe | for the device |
| `Certify` | whether no sticker changes the label, on a sample | for the device |
| `Publish` | – | for Kafka's acknowledgement of the verdict or dead letter |
| `Compare` | – | – |
| `Finish` | – | – |

Four types describe a frame here: `FrameJob` with its `StripFinding` and, in profiles with key frames, its `KeyFrame`
(all in `processors.arrivals`), and `OutgoingRecord`, the record for Kafka (`processors.results.records`).

A new step goes into the list of `build_chain`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from processors.arrivals.partitions import PartitionTracker
from processors.decoding.decoders import DecodingSettings, VideoDecoders
from processors.device.loaded_model import LoadedModel
from processors.device.scheduler import DeviceScheduler
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.key_requests import KeyRequests
from processors.results.repeats import Repeats
from processors.settings import ProcessorSettings
from processors.steps.await_key_frame import AwaitKeyFrame
from processors.steps.certify import Certify
from processors.steps.classify import Classify
from processors.steps.compare import Compare
from processors.steps.decode import Decode
from processors.steps.deduplicate import Deduplicate
from processors.steps.device_turns import DeviceTurns
from processors.steps.finish import Finish
from processors.steps.publish import Publish
from processors.steps.step import Step
from processors.steps.strip import Strip
from processors.steps.validate import Validate
from schemas.keys.keys import KeyRing

log = structlog.get_logger()


def build_chain(
    settings: ProcessorSettings,
    keys: KeyRing,
    loaded: LoadedModel,
    tracker: PartitionTracker,
    emitter: Emitter,
    metrics: ProcessorMetrics,
) -> Chain:
    """Build the steps in the order of a frame's way. `keys` verify frames and sign results."""
    repeats = Repeats()
    requests = KeyRequests(settings, emitter, metrics)
    decoders = video_decoders(settings)
    steps: Sequence[Step] = (
        Validate(settings, keys, metrics),
        Deduplicate(repeats),
        await_key_frame := AwaitKeyFrame(settings, keys, requests, decoders, tracker, metrics),
        decode := Decode(decoders, tracker, requests, metrics),
        classify := Classify(settings, loaded, metrics),
        strip := Strip(settings, tracker, metrics),
        certify := Certify(settings, tracker, metrics, classify.arrived),
        Publish(settings, keys, emitter, repeats, metrics),
        compare := Compare(settings, keys, classify, emitter, metrics),
        Finish(tracker, metrics),
    )
    for step, following in pairwise(steps):
        step.next = following
    scheduler = DeviceScheduler(
        settings.strip_share, settings.strip_slice_s, loaded.probe_s or 0.0, settings.comparison_share
    )
    device = DeviceTurns(classify, strip, certify, compare, scheduler, metrics)
    return Chain(steps, await_key_frame, decode, classify, strip, certify, compare, device, tracker, metrics)


def video_decoders(settings: ProcessorSettings) -> VideoDecoders:
    """Return the decoders of the profile `video`, with the limits of these settings."""
    return VideoDecoders(
        DecodingSettings(
            processes=settings.decoding_processes,
            most_pixels=settings.max_frame_pixels,
            timeout_s=settings.decoding_timeout_s,
            wait_s=settings.group_wait_s,
            wait_units=settings.group_wait_frames,
            held_bytes=settings.group_bytes,
            open_pixels=settings.decoder_pixels,
            unconfined=settings.decoding_unconfined,
        )
    )


@dataclass(frozen=True, eq=False)
class Chain:
    """The steps of one processor. All methods run on the event loop's thread."""

    steps: Sequence[Step]
    await_key_frame: AwaitKeyFrame
    decode: Decode
    classify: Classify
    strip: Strip
    certify: Certify
    compare: Compare
    device: DeviceTurns
    """A task of the role runs it."""
    tracker: PartitionTracker
    metrics: ProcessorMetrics

    def accept(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> int:
        """Submit Kafka's records to the first step, and return their number.

        Raises OffsetRegressionError, before any record is counted, if they belong to another log than the previous
        ones.
        """
        self.tracker.check(records)
        now_s = time.monotonic()
        first, count = self.steps[0], 0
        for partition_records in records.values():
            for record in partition_records:
                first.submit(self.tracker.admit(record, now_s))
            count += len(partition_records)
        if count:
            self.poll(now_s)
            self.metrics.stage("validate", time.monotonic() - now_s)
        return count

    def poll(self, now_s: float) -> None:
        """Let each step do what is due at this monotonic time."""
        for step in self.steps:
            step.poll(now_s)

    def discard(self, partition: int) -> None:
        """Drop the waiting jobs of a revoked partition: Kafka delivers them again."""
        for step in self.steps:
            for job in step.discard(partition):
                self.tracker.drop(job)

    async def drain(self, seconds: float) -> None:
        """Finish the jobs that the device has begun, or as many as `seconds` allow; drop those that wait for it.

        Probes that wait for half of that time are shed, and certificates are left out.
        """
        with self.device.draining(), self.certify.shedding():
            # The whole group waits for this member. The next owner may have the frames that others wait for, and reads
            # a long queue again sooner than this device would finish it.
            for partition in list(self.tracker.progress):
                for step in (self.await_key_frame, self.decode, self.classify):
                    for job in step.discard(partition.partition):
                        self.tracker.drop(job)
            timer = asyncio.get_running_loop().call_later(seconds / 2, self.strip.shed_waiting)
            try:
                async with asyncio.timeout(seconds):
                    await self.tracker.idle.wait()
            except TimeoutError:
                log.info("drain_timed_out", records=self.tracker.unfinished)
            finally:
                timer.cancel()

    async def close(self) -> None:
        """Close the steps: deliveries in progress are cancelled, and Kafka delivers their frames again."""
        for step in self.steps:
            await step.close()
