"""Clips: the pictures of one camera around a moment, read from a real Kafka, as a film."""

from __future__ import annotations

import io
import time
from pathlib import Path

import av
import pytest
from aiokafka import AIOKafkaProducer

from consumers.console.data.clips import AFTER_MS, BEFORE_MS, Shot, film, read_shots
from consumers.console.settings import ConsoleSettings
from infra.local.kafka import Kafka
from schemas.errors import BrokerError
from tests.conftest import TopicFactory
from tests.consumers.console_rig import CONSOLE_KEYS, scene
from tests.consumers.recorder_rig import CAMERA, spoken, verdict


def settings(folder: Path, kafka: str, topic: str) -> ConsoleSettings:
    made = ConsoleSettings(
        kafka=kafka,
        database=f"sqlite:///{folder}/none.sqlite",
        quarantine=str(folder / "quarantine"),
        store=f"sqlite:///{folder}/console.sqlite",
        http=("127.0.0.1", 0),
    )
    return made.model_copy(update={"verdicts_topic": topic})


@pytest.mark.brokers
async def test_a_clip_holds_the_cameras_pictures_around_the_moment(
    tmp_path: Path, kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic, at_ms, jpegs = await kafka_topics(3), time.time_ns() // 10**6 - 60_000, [scene(seed) for seed in range(3)]
    offsets_ms = (-BEFORE_MS - 5_000, -20_000, -10_000, 0, AFTER_MS + 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    try:
        for seq, offset_ms in enumerate(offsets_ms):
            for camera in (CAMERA, "lab/other"):
                captured_ms = at_ms + offset_ms
                made = verdict(seq, captured_ms=captured_ms, preview=jpegs[seq % 3] if camera == CAMERA else scene(9))
                value = spoken(made, camera)
                await producer.send_and_wait(topic, value, key=camera.encode(), timestamp_ms=captured_ms)
        unsigned = verdict(9, captured_ms=at_ms, preview=scene(8)).SerializeToString()
        await producer.send_and_wait(topic, unsigned, key=CAMERA.encode(), timestamp_ms=at_ms)
    finally:
        await producer.stop()
    shots = await read_shots(settings(tmp_path, kafka.bootstrap, topic), CONSOLE_KEYS, CAMERA, at_ms)
    assert shots == [Shot(at_ms - 20_000, jpegs[1]), Shot(at_ms - 10_000, jpegs[2]), Shot(at_ms, jpegs[0])]
    assert await read_shots(settings(tmp_path, kafka.bootstrap, topic), CONSOLE_KEYS, CAMERA, at_ms + 10**7) == []
    with av.open(io.BytesIO(film(shots)), "r") as container:
        times = [round(float(frame.time or 0), 1) for frame in container.decode(video=0)]
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 96)
    assert times == [0.0, 10.0, 20.0, 21.0]


async def test_a_kafka_that_is_away_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=f"expected the pictures of {CAMERA}"):
        await read_shots(settings(tmp_path, "127.0.0.1:1", "none"), CONSOLE_KEYS, CAMERA, 0)


def test_no_pictures_are_no_film() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        film([])
