"""One camera's frames cannot exhaust the device: limits of frame size and device time, with a real Kafka."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from infra.local.kafka import Kafka
from processors.arrivals.job import FrameJob
from processors.device.batch_executor import BatchExecutor
from schemas.limits import USUAL_FRAME_PIXELS
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import LOSSLESS
from tests.processors.rig import start_rig
from tests.processors.tiny import payload, picture, write_bundle
from tests.waiting import until

pytestmark = pytest.mark.brokers

SLOW_S = 0.25


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


async def test_small_messages_that_unpack_beyond_the_frame_size_limit_are_dead_lettered_undecoded(
    kafka: Kafka, bundle: Path
) -> None:
    shown = np.zeros((1792, 8192, 1), np.uint8)
    bombs = [payload("site/bomber", seq, shown=shown, encoding=Encoding(16, profile=LOSSLESS)) for seq in range(6)]
    assert max(map(len, bombs)) < 1000
    good = [payload("site/good", seq) for seq in range(6)]
    mixed = [
        each for pair in zip(bombs, good, strict=True) for each in zip(("site/bomber", "site/good"), pair, strict=True)
    ]
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor() as running:
            await rig.publish(mixed, partition=1)
            await until(lambda: len(rig.verdicts) == len(good) and len(rig.letters) == len(bombs))
            await until(lambda: running.metric("pointillist_frames_total", outcome="dead_lettered") == len(bombs))
            assert running.metric("pointillist_refused_frames_total", reason="over_size") == len(bombs)
        assert await rig.committed() == len(good) + len(bombs)
    assert {(x.camera_id, x.boot_id, x.seq, x.verified) for x in rig.letters} == {
        ("site/bomber", 7, seq, True) for seq in range(6)
    }
    assert {(x.stage, x.reason) for x in rig.letters} == {("validate", "over_size")}
    assert rig.letters[0].error == (
        f"frame size: expected at most {USUAL_FRAME_PIXELS} pixels, got 8192x1792. "
        "Set the camera's size to 3088x672 or smaller."
    )


async def test_a_camera_above_its_quota_loses_frames_and_does_not_delay_others_of_its_partition(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BatchExecutor.classify

    def slow(self: BatchExecutor, batch: Sequence[FrameJob]) -> None:
        if batch[0].shape.height == 40:
            time.sleep(SLOW_S * len(batch))
        original(self, batch)

    monkeypatch.setattr(BatchExecutor, "classify", slow)
    dear = [("site/dear", payload("site/dear", seq, shown=picture(seq, 40, 40))) for seq in range(150)]
    good = [(f"site/cam-{seq % 5}", payload(f"site/cam-{seq % 5}", seq)) for seq in range(100)]
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor(batch_pixels=40 * 40) as running:
            await rig.publish([*good[:50], *dear, *good[50:]], partition=0)
            await until(lambda: sum(name[0] != "site/dear" for name in rig.verdicts) == len(good))
            done = sum(name[0] == "site/dear" for name in rig.verdicts)
            # Without a quota, most of the slow frames would have been classified before.
            assert done * SLOW_S <= 10.0
            await until(lambda: len(rig.verdicts) + len(rig.letters) == len(dear) + len(good))
            assert running.metric("pointillist_refused_frames_total", reason="over_quota") == len(rig.letters)
        assert await rig.committed() == len(dear) + len(good)
    assert {(x.camera_id, x.stage, x.reason, x.verified) for x in rig.letters} == {
        ("site/dear", "queue", "over_quota", True)
    }
    recorded = {seq for camera, _, seq in rig.verdicts if camera == "site/dear"}
    refused = {x.seq for x in rig.letters}
    assert recorded | refused == set(range(150))
    assert not recorded & refused
