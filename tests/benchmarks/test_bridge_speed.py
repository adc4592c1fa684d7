"""The load of the bridge benchmark: the bridge writes each of its messages."""

from __future__ import annotations

import pytest

from benchmarks.speed.bridge import CAMERAS, FIRST_BOOT, PARTITIONS, SECRET, Side, measure, run_ours, running_brokers
from benchmarks.speed.bridge_load import signed_frames
from infra.local.topics import pointillist_topics
from schemas.keys.keys import KeyRing
from schemas.topics import KafkaTopic


@pytest.mark.brokers
async def test_each_message_of_warm_up_and_load_reaches_kafka() -> None:
    frames = signed_frames(KeyRing(SECRET), CAMERAS, 1, FIRST_BOOT)
    side = Side("ours", run_ours, KafkaTopic.FRAMES.value, in_child=False)
    async with running_brokers(pointillist_topics(PARTITIONS)) as brokers:
        # `measure` fails after its deadline if a message is missing: the bridge drops a frame that it gets again.
        found = await measure(side, brokers, frames, 3 * CAMERAS, warm_up=2 * CAMERAS)
    assert found["messages_per_s"] > 0
