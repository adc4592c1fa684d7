"""Whole processors, with a real Kafka."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from infra.local.kafka import Kafka
from processors.device import loaded_model
from processors.device.batch_executor import BatchExecutor
from processors.device.lost_device import DeviceLostError
from processors.pipeline import Pipeline
from processors.service import run_processor
from processors.settings import ProcessorSettings
from processors.steps.device_turns import DeviceTurns
from schemas.errors import BundleError, RestartRequired
from schemas.keys.keys import Purpose
from schemas.messages.frame import Encoding, Truth, parse_frame
from schemas.pointillist_pb2 import CHECKED, LOSSLESS, NOT_PROBED, SHED, Frame
from schemas.runtime.abandoned import abandoned
from schemas.runtime.health import Health
from schemas.waiting import cancel
from tests.processors.rig import FrameName, start_rig
from tests.processors.tiny import CLASSES, KEYS, TRACE, camera_key, payload, picture, write_bundle
from tests.waiting import PATIENCE_S, until

brokers = pytest.mark.brokers


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), threshold_bits=10.0)


def fleet(cameras: int, each: int, first: int = 0, encoding: Encoding | None = None) -> dict[FrameName, bytes]:
    return {
        (f"site/cam-{c}", 7, seq): payload(f"site/cam-{c}", seq, encoding=encoding, truth=Truth(seq % 3))
        for seq in range(first, first + each)
        for c in range(cameras)
    }


def messages(frames: dict[FrameName, bytes]) -> list[tuple[str, bytes | None]]:
    return [(name[0], message) for name, message in frames.items()]


@brokers
async def test_each_frame_gets_one_verdict(kafka: Kafka, bundle: Path) -> None:
    frames = fleet(6, 20) | fleet(6, 5, 20, Encoding(40, profile=LOSSLESS)) | fleet(6, 3, 25, Encoding(16, 1.0))
    grey = payload("site/grey", 3, shown=picture(3, 50, 77, 1))
    frames["site/grey", 7, 3] = grey
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor() as running:
            await rig.publish(messages(frames))
            await until(lambda: len(rig.verdicts) == len(frames))
            # Verdicts are counted once Kafka has acknowledged them, and the test may read them earlier.
            await until(lambda: running.metric("pointillist_frames_total", outcome="classified") == len(frames))
            assert running.metric("pointillist_strip_frames_total", outcome="flagged") == 18
            sent = running.metric("pointillist_frame_bytes_total", kind="sent")
            assert sent == sum(len(message) for message in frames.values())
            assert running.metric("pointillist_stage_seconds_count", stage="reconstruct") > 0
        assert await rig.committed() == len(frames)
    assert rig.verdicts.keys() == frames.keys()
    assert all(len(verdicts) == 1 for verdicts in rig.verdicts.values())
    assert not rig.letters
    for name, (verdict,) in rig.verdicts.items():
        frame = parse_frame(frames[name])
        assert verdict.class_name == CLASSES[verdict.class_id]
        assert 1 / 3 <= verdict.confidence <= 1
        assert verdict.model_id.startswith("tiny@1+")
        assert verdict.policy == "resize"
        assert verdict.truth == frame.truth
        assert verdict.captured_ms == frame.captured_ms
        assert verdict.processed_ms > 1_700_000_000_000
        assert (verdict.height, verdict.width, verdict.channels) == (frame.height, frame.width, frame.channels)
        assert (verdict.frame_bytes, verdict.pixel_bytes) == (len(frames[name]), len(frame.pixels))
        assert verdict.whole == frame.whole
        assert verdict.strip == (CHECKED if frame.whole else NOT_PROBED)
        assert rig.traces[name] == TRACE
        if frame.whole:
            assert 0 <= verdict.entropy_bits <= np.log2(3) + 1e-6
            assert verdict.flagged
            evidence = np.asarray(Image.open(io.BytesIO(verdict.evidence)))
            np.testing.assert_array_equal(evidence, picture(frame.seq))
    previews = [v for name, (v,) in rig.verdicts.items() if v.preview and name[0] == "site/grey"]
    assert Image.open(io.BytesIO(previews[0].preview)).size == (77, 50)


@brokers
async def test_a_repeated_frame_gets_the_same_verdict_without_device_time(kafka: Kafka, bundle: Path) -> None:
    frames = fleet(3, 8) | fleet(3, 2, 8, Encoding(16, 1.0))
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor() as running:
            await rig.publish(messages(frames))
            await until(lambda: running.metric("pointillist_frames_total", outcome="classified") == len(frames))
            batched, checked = (
                running.metric("pointillist_batch_frames_sum"),
                running.metric("pointillist_strip_entropy_bits_count"),
            )
            await rig.publish([*messages(frames), *messages(frames)])
            await until(lambda: sum(map(len, rig.verdicts.values())) == 3 * len(frames))
            assert running.metric("pointillist_batch_frames_sum") == batched == len(frames)
            assert running.metric("pointillist_strip_entropy_bits_count") == checked
        assert await rig.committed() == 3 * len(frames)
    for first, *again in rig.verdicts.values():
        for verdict in again:
            assert not verdict.evidence
            assert (verdict.class_id, verdict.processed_ms) == (first.class_id, first.processed_ms)
            assert (verdict.strip, verdict.entropy_bits) == (first.strip, first.entropy_bits)


@brokers
async def test_after_the_loss_of_the_device_kafka_delivers_its_frames_again(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_device(*_: object) -> None:
        raise DeviceLostError("the device is lost")

    frames = fleet(2, 10)
    async with start_rig(kafka.bootstrap, bundle) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(BatchExecutor, "_attempt", lose_device)
            running = rig.start()
            await rig.publish(messages(frames))
            async with asyncio.timeout(2 * PATIENCE_S):
                with pytest.raises(RestartRequired, match="the device is lost"):
                    await running.task
        assert await rig.committed() == 0
        async with rig.processor():
            await until(lambda: rig.verdicts.keys() == frames.keys())
        assert not rig.letters


@brokers
async def test_a_device_that_hangs_ends_the_processor_after_it_is_unhealthy(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, before = threading.Event(), abandoned()
    monkeypatch.setattr(BatchExecutor, "_attempt", lambda *_: ends.wait(10 * PATIENCE_S))
    async with start_rig(kafka.bootstrap, bundle) as rig:
        running = rig.start(device_timeout_s=1.0)
        try:
            await rig.publish(messages(fleet(2, 10)))
            async with asyncio.timeout(2 * PATIENCE_S):
                with pytest.raises(RestartRequired, match="expected a result of its work within 1 s, got none"):
                    await running.task
            assert abandoned() == before + 1  # the end of the process does not wait for it
        finally:
            ends.set()
        assert not running.health.report()[1]["device"]["ok"]
        assert await rig.committed() == 0
    await until(lambda: abandoned() == before)


@brokers
async def test_a_slow_device_is_unhealthy_until_its_work_ends(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked_s = 60.0
    monkeypatch.setattr(DeviceTurns, "observe", lambda *_: worked_s)
    async with start_rig(kafka.bootstrap, bundle) as rig, rig.processor() as running:
        worked_s = 61.0
        slow = {"ok": False, "detail": "no result of its work after 61 s"}
        # On a busy machine another condition may fail for a moment.
        await until(lambda: running.health.report()[1]["device"] == slow, "an unhealthy device")
        assert not running.healthy()
        worked_s = 0.0
        await until(running.healthy, "a healthy processor")


@brokers
async def test_bad_payloads_among_good_frames_become_dead_letters(kafka: Kafka, bundle: Path) -> None:
    frames = fleet(2, 10)
    good = frames["site/cam-0", 7, 0]
    wrong_pixels = Frame.FromString(good)
    wrong_pixels.seq = 900
    wrong_pixels.pixels = b"too short"
    wrong_pixels.ClearField("tag")
    signed = camera_key("site/cam-0").sign(Purpose.FRAME, wrong_pixels.SerializeToString())
    bad: list[tuple[str, bytes | None]] = [
        ("site/cam-0", b"\xff\xff no message"),
        ("site/cam-0", good[:-1] + bytes([good[-1] ^ 1])),
        ("site/cam-1", good),
        ("Not A Camera", good),
        ("site/cam-0", None),
        ("site/cam-0", signed),
    ]
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor() as running:
            mixed = messages(frames)
            await rig.publish([*mixed[:7], *bad, *mixed[7:]], partition=2)
            await until(lambda: len(rig.verdicts) == len(frames) and len(rig.letters) == len(bad))
            await until(lambda: running.metric("pointillist_frames_total", outcome="dead_lettered") == len(bad))
        assert await rig.committed() == len(frames) + len(bad)
    assert rig.verdicts.keys() == frames.keys()
    assert sorted(letter.reason for letter in rig.letters) == [
        "bad_pixels",
        "bad_tag",
        "bad_tag",
        "malformed",
        "malformed",
        "malformed",
    ]
    for letter in rig.letters:
        assert letter.origin_topic == rig.topic("frames")
        assert letter.origin_partition == 2
        assert 7 <= letter.origin_offset < 13
        assert letter.verified == (letter.reason == "bad_pixels")
    (verified,) = [letter for letter in rig.letters if letter.verified]
    assert (verified.camera_id, verified.boot_id, verified.seq) == ("site/cam-0", 7, 900)
    assert verified.stage == "unpack"
    assert signed.startswith(verified.payload)


@brokers
async def test_a_cancelled_frame_is_delivered_again_and_not_dead_lettered(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = fleet(4, 10)
    original = BatchExecutor.classify
    entered, cancelled = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def held(self: BatchExecutor, *arguments: object) -> object:
        loop.call_soon_threadsafe(entered.set)
        assert cancelled.wait(PATIENCE_S)
        return original(self, *arguments)  # type: ignore[arg-type]

    async with start_rig(kafka.bootstrap, bundle) as rig:
        monkeypatch.setattr(BatchExecutor, "classify", held)
        running = rig.start()
        await until(running.healthy)
        await rig.publish(messages(frames))
        await entered.wait()
        running.task.cancel()
        await asyncio.sleep(0)  # the task is cancelled before the device answers
        cancelled.set()
        await asyncio.gather(running.task, return_exceptions=True)
        assert running.task.cancelled()
        monkeypatch.setattr(BatchExecutor, "classify", original)
        assert len(rig.verdicts) < len(frames)
        async with rig.processor():
            await until(lambda: len(rig.verdicts) == len(frames))
        assert not rig.letters
        assert await rig.committed() == len(frames)


@brokers
async def test_a_stop_finishes_and_commits_the_frames_in_progress(kafka: Kafka, bundle: Path) -> None:
    frames = fleet(4, 10) | fleet(4, 5, 10, Encoding(16, probe_share=1.0))
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor() as running:
            await rig.publish(messages(frames))
            await until(lambda: running.metric("pointillist_frames_total", outcome="classified") > 0)
        done = await rig.committed()
        assert done > 0
        assert done == running.metric("pointillist_frames_total", outcome="classified")
        await until(lambda: sum(map(len, rig.verdicts.values())) >= done)


@brokers
async def test_processors_that_join_and_leave_lose_no_frame(kafka: Kafka, bundle: Path) -> None:
    frames = fleet(8, 60)
    waves = messages(frames)
    async with start_rig(kafka.bootstrap, bundle) as rig:
        first = rig.start(instance="one", session_timeout_s=6.0)
        await until(first.healthy)
        await rig.publish(waves[:120])
        await until(lambda: len(rig.verdicts) > 20)
        async with rig.processor() as second:
            await rig.publish(waves[120:300])
            await until(lambda: second.metric("pointillist_frames_total", outcome="classified") > 0)
            await cancel(first.task)
            again = rig.start(instance="one", session_timeout_s=6.0)
            await rig.publish(waves[300:])
            await until(lambda: len(rig.verdicts) == len(frames))
            again.stop.set()
            await again.task
        assert not rig.letters


@brokers
async def test_a_full_strip_queue_sheds_probes_and_counts_them(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = fleet(4, 12, encoding=Encoding(16, probe_share=1.0))
    original = BatchExecutor.strip

    def slow(self: BatchExecutor, *arguments: object) -> object:
        time.sleep(0.3)  # a device that is too slow for these probes
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchExecutor, "strip", slow)
    async with start_rig(kafka.bootstrap, bundle) as rig:
        await rig.publish(messages(frames))
        async with rig.processor(strip_queue=3, strip_slice_s=0.001) as running:
            await until(lambda: len(rig.verdicts) == len(frames))
            shed = running.metric("pointillist_strip_frames_total", outcome="shed")
            checked = running.metric("pointillist_strip_frames_total", outcome="checked")
        outcomes = [verdict.strip for (verdict,) in rig.verdicts.values()]
        assert outcomes.count(SHED) == shed > 0
        assert outcomes.count(CHECKED) == checked > 0
        assert shed + checked == len(frames)
        assert not any(verdict.flagged for (verdict,) in rig.verdicts.values() if verdict.strip == SHED)
        assert await rig.committed() == len(frames)


@brokers
async def test_a_stage_that_fails_on_one_frame_fails_only_that_frame(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = fleet(3, 8)
    white = np.full((32, 32, 3), 255, np.uint8)
    frames["site/cam-1", 7, 500] = payload("site/cam-1", 500, shown=white)
    original = Pipeline.rebuild

    def rebuild(self: Pipeline, pictures: object, *rest: object) -> object:
        if bool((pictures.mean((1, 2, 3)) > 0.7).any()):  # type: ignore[attr-defined]
            raise RuntimeError("too bright")
        return original(self, pictures, *rest)  # type: ignore[arg-type]

    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor():
            monkeypatch.setattr(Pipeline, "rebuild", rebuild)
            await rig.publish(messages(frames))
            await until(lambda: len(rig.verdicts) == len(frames) - 1 and bool(rig.letters))
        assert await rig.committed() == len(frames)
    (letter,) = rig.letters
    assert (letter.camera_id, letter.seq, letter.verified) == ("site/cam-1", 500, True)
    assert "too bright" in letter.error


async def test_a_missing_bundle_raises_one_error(tmp_path: Path) -> None:
    settings = ProcessorSettings(kafka="127.0.0.1:1", bundle=tmp_path / "nothing", device="cpu")
    with pytest.raises(BundleError, match=r"model\.toml"):
        await run_processor(settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())


async def test_a_processor_waits_for_an_unreachable_kafka_until_it_is_stopped(bundle: Path) -> None:
    health, stop = Health(), asyncio.Event()
    settings = ProcessorSettings(kafka="127.0.0.1:1", bundle=bundle, device="cpu", backend="torch", threads=1)
    task = asyncio.create_task(run_processor(settings, KEYS, registry=CollectorRegistry(), health=health, stop=stop))
    await until(lambda: "warm" in health.report()[1] and bool(health.report()[1]["warm"]["ok"]))
    await asyncio.sleep(0.3)
    assert not task.done()
    assert not health.report()[1]["kafka"]["ok"]
    stop.set()
    async with asyncio.timeout(PATIENCE_S):
        await task


async def test_a_stop_cancels_the_load_of_the_first_model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, hangs, stop, before = threading.Event(), threading.Event(), asyncio.Event(), abandoned()

    def load(*arguments: object, **options: object) -> None:
        loads.set()
        hangs.wait(5 * PATIENCE_S)
        raise BundleError("the end of the test")

    monkeypatch.setattr(loaded_model, "load_bundle", load)
    settings = ProcessorSettings(kafka="127.0.0.1:1", bundle=bundle, device="cpu")
    task = asyncio.create_task(run_processor(settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=stop))
    try:
        await until(loads.is_set)
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task
    finally:
        hangs.set()
    await until(lambda: abandoned() == before)
