from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import pytest

from tests.consumers.pages_rig import half_open
from tests.consumers.recorder_rig import verdict
from tests.consumers.scene import WAIT_S, Scene, free_port, get
from tests.waiting import until


@pytest.mark.brokers
async def test_half_open_requests_do_not_stop_recording(scene: Scene) -> None:
    port = free_port()
    process = scene.process(descriptors=200, http=("127.0.0.1", port))
    try:
        await until(lambda: _answers(port))
        with half_open(port, 600):
            # A flagged frame goes to the quarantine: a file has to be opened for it.
            await scene.verdicts(verdict(n, flagged=n % 10 == 0) for n in range(50))
            await until(lambda: len(scene.recorded()) == 50)
            assert (await get(f"http://127.0.0.1:{port}/cameras"))[0] == 200
        process.terminate()
        assert await asyncio.to_thread(process.wait, WAIT_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.brokers
async def test_the_pages_of_a_killed_recorder_leave_their_address_to_the_next_one(scene: Scene) -> None:
    port = free_port()
    for _ in range(3):
        process = scene.process(http=("127.0.0.1", port))
        try:
            await until(lambda: _answers(port))
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/cameras", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
