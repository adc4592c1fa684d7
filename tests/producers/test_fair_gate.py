"""The order of cameras when more frames are due than the event loop can process at once."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise

from producers.camera.fair_gate import FairGate


async def test_a_camera_alone_enters_at_once() -> None:
    gate = FairGate(2)
    for _ in range(3):
        waiting = gate.enter()
        with contextlib.suppress(StopIteration):
            waiting.send(None)
            raise AssertionError("expected a turn at once")
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_an_overloaded_loop_serves_other_tasks_between_a_few_frames() -> None:
    gate, entered = FairGate(4), list[int]()

    async def camera(number: int) -> None:
        await gate.enter()
        entered.append(number)

    cameras = [asyncio.create_task(camera(number)) for number in range(100)]
    seen = [0]
    while not all(each.done() for each in cameras):
        await asyncio.sleep(0)
        seen.append(len(entered))
    assert max(after - before for before, after in pairwise(seen)) <= 4
    assert entered == list(range(100))


async def test_a_camera_cancelled_while_it_waits_delays_no_other_camera() -> None:
    gate, entered = FairGate(1), list[int]()

    async def camera(number: int) -> None:
        await gate.enter()
        entered.append(number)

    cameras = [asyncio.create_task(camera(number)) for number in range(6)]
    await asyncio.sleep(0)
    for ended in cameras[1:5]:
        ended.cancel()
    await asyncio.wait_for(asyncio.gather(*cameras, return_exceptions=True), 60)
    assert entered == [0, 5]
    await asyncio.wait_for(gate.enter(), 60)
