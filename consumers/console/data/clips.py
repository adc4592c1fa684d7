"""Clips: a camera's rebuilt pictures around a moment as a film, from the sealed previews that Kafka holds."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import av
import numpy as np
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from PIL import Image

from consumers.records.batch import read
from consumers.settings import RecordsSettings
from schemas.clock import unix_ms
from schemas.errors import BrokerError
from schemas.keys.keys import KeyRing
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.sender import partition_of

BEFORE_MS: Final = 30_000
AFTER_MS: Final = 15_000
MOST_BYTES: Final = 64 * 2**20
"""Bytes of verdicts that one clip reads."""
MOST_PICTURES: Final = 600
_LONGEST_S: Final = 20.0
LATE_MS: Final = 10_000
"""A verdict is in Kafka at most this long after its frame was captured, in the usual case."""
_HOLD_MS: Final = 1_000
"""Time for which the last picture is shown."""


class ClipPicture(NamedTuple):
    """One picture of a clip."""

    at_ms: int
    """Time of its capture, or of its processing, Unix time in milliseconds."""
    jpeg: bytes


async def read_shots(settings: RecordsSettings, keys: KeyRing, camera: str, at_ms: int) -> list[ClipPicture]:
    """Return the pictures from `BEFORE_MS` before a moment to `AFTER_MS` after it, in order, if Kafka still holds them.

    If the camera captured none of them then, its clock is wrong, or they waited: their times are those of processing.
    Raises BrokerError if Kafka does not answer in time.
    """
    captured: dict[int, bytes] = {}
    processed: dict[int, bytes] = {}
    try:
        async with (
            asyncio.timeout(_LONGEST_S),
            Reader(settings.kafka, settings.verdicts_topic, begin="latest") as reader,
        ):
            partitions = sorted(reader.partitions_of(settings.verdicts_topic))
            if not partitions:
                return []
            place = TopicPartition(settings.verdicts_topic, partition_of(camera.encode(), partitions))
            begin = await reader.at_time(place, max(0, at_ms - BEFORE_MS))
            if begin is None:
                return []
            reader.seek({place: begin})
            left, now_ms = MOST_BYTES, unix_ms()
            async for batch in reader.fetch_until(await reader.ends([place])):
                records = batch.get(place, ())
                mine = [record for record in records if record.key == camera.encode()]
                for key, verdict in read(mine, settings, keys, now_ms).verdicts.items():
                    if key[0] == camera and verdict.preview:
                        captured[verdict.captured_ms] = processed[verdict.processed_ms] = verdict.preview
                left -= sum(len(record.value or b"") for record in records)
                if left < 0 or any(record.timestamp > at_ms + AFTER_MS + LATE_MS for record in records):
                    break
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerError(f"Kafka: expected the pictures of {camera} in time, got {error or 'no answer'}") from None
    within = range(at_ms - BEFORE_MS, at_ms + AFTER_MS + 1)
    for shots in (captured, processed):
        if found := [ClipPicture(at, jpeg) for at, jpeg in sorted(shots.items()) if at in within]:
            return found[-MOST_PICTURES:]
    return []


def film(shots: Sequence[ClipPicture]) -> bytes:
    """Return the pictures as MP4 (H.264), each shown until the next one; all in the size of the first.

    Raises ValueError for no pictures.
    """
    if not shots:
        raise ValueError("expected at least one picture, got none")
    first = Image.open(io.BytesIO(shots[0].jpeg))
    width, height = (max(2, side // 2 * 2) for side in first.size)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20", "preset": "veryfast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        last_ms = shots[-1].at_ms + _HOLD_MS
        for at_ms, jpeg in (*shots, ClipPicture(last_ms, shots[-1].jpeg)):
            picture = Image.open(io.BytesIO(jpeg)).convert("RGB").resize((width, height))
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame.pts, frame.time_base = at_ms - shots[0].at_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()
