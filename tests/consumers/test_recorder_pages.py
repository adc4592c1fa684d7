from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.conftest import TopicFactory
from tests.consumers.pages_rig import half_open
from tests.consumers.recorder_rig import BOOT, CAMERA, ledger, verdict
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


@pytest.mark.brokers
async def test_the_page_of_the_audit_follows_what_is_recorded_and_names_what_is_lost(
    scene: Scene, kafka_topics: TopicFactory
) -> None:
    port = free_port()
    process = scene.process(http=("127.0.0.1", port), frames_topic=await kafka_topics(2))

    async def counts() -> dict[str, Any]:
        return dict(json.loads((await get(f"http://127.0.0.1:{port}/audit"))[2]))

    try:
        await until(lambda: _answers(port))
        await scene.verdicts(verdict(seq) for seq in range(10) if seq != 4)
        said = ledger(1, 12)
        said.confirmed_to = 10
        await scene.event(said)

        async def knows() -> bool:
            found = await counts()
            return found.get("frames_recorded") == 9 and found["frames_lost"] == 1

        await until(knows)
        found = await counts()
        assert (found["frames_published"], found["frames_pending"]) == (12, 2)
        assert found["lost"] == [{"camera_id": CAMERA, "boot_id": f"{BOOT:016x}", "ranges": [[4, 4]]}]
        await scene.verdicts([verdict(4)])

        async def found_again() -> bool:
            return bool((await counts())["frames_lost"] == 0)

        await until(found_again)
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/cameras", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
