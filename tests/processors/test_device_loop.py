"""When the device takes what waits: at once while it idles, together where it is busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from prometheus_client import CollectorRegistry

from processors.device.batch_executor import Found
from processors.device.loop import Classification, DeviceLoop
from processors.device.previews import Wanted
from processors.device.scheduler import DeviceScheduler
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from tests.processors.test_microbatch import Waiting
from tests.waiting import until

LINGER_S = 1.0


class Work:
    """A device that takes as long as it is told to, and finds nothing."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.each_s = 0.0

    def classify(self, batch: Sequence[Waiting], previews: Sequence[bool]) -> list[Found]:
        self.batches.append(len(batch))
        time.sleep(self.each_s)
        return [Found(0, 0.5, None, None) for _ in batch]


async def test_a_frame_waits_for_others_only_as_far_as_the_device_is_busy() -> None:
    executor, device = Work(), ThreadPoolExecutor(1)
    concluded: list[Classification] = []
    loop = DeviceLoop(
        ProcessorSettings(kafka="", bundle=Path(), linger_s=LINGER_S),
        SimpleNamespace(executor=executor, device=device),  # type: ignore[arg-type]  # a stand-in
        DeviceScheduler(0.25, 0.1),
        ProcessorMetrics(CollectorRegistry()),
        wanted=lambda *_: Wanted.NOTHING,
        conclude=lambda ready, failed: concluded.extend(ready),
        waits=lambda _: None,
        over_quota=lambda _: None,
    )
    running = asyncio.create_task(loop.run())
    try:
        began = time.monotonic()
        loop.put(Waiting("a", 0, arrived_s=began))  # type: ignore[arg-type]  # all that is asked of a frame
        await until(lambda: len(concluded) == 1)
        assert time.monotonic() - began < LINGER_S
        assert loop.linger_s == 0
        executor.each_s = 0.8
        loop.put(Waiting("a", 1, arrived_s=time.monotonic()))  # type: ignore[arg-type]
        await until(lambda: len(concluded) == 2)
        assert loop.linger_s > LINGER_S / 2
        loop.put(Waiting("a", 2, arrived_s=time.monotonic()))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)  # had it not waited, it would be alone on the device by now
        loop.put(Waiting("b", 3, arrived_s=time.monotonic()))  # type: ignore[arg-type]
        executor.each_s = 0.0
        await until(lambda: len(concluded) == 4)
        assert executor.batches == [1, 1, 2]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        device.shutdown()
