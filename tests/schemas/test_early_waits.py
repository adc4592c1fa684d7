"""Waits that end early."""

from __future__ import annotations

import asyncio

import pytest

from schemas.waiting import cancel, ends_before, wait_at_most


async def test_a_wait_for_an_event_ends_with_it_or_after_the_time() -> None:
    event = asyncio.Event()
    assert not await wait_at_most(event, 0.0)
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_at_most(event, 60.0)


async def test_a_task_that_outlasts_a_stop_or_a_time_is_cancelled() -> None:
    stop = asyncio.Event()
    for timeout_s in (0.0, None):
        task = asyncio.create_task(asyncio.sleep(60.0))
        asyncio.get_running_loop().call_soon(stop.set)
        assert not await ends_before(task, stop, timeout_s)
        assert task.cancelled()


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_task_that_has_ended_counts_with_its_result_or_error(is_stopped: bool) -> None:
    stop = asyncio.Event()
    if is_stopped:
        stop.set()

    async def work(fails: bool) -> int:
        if fails:
            raise ValueError("an error")
        return 1

    right, wrong = (asyncio.create_task(work(fails)) for fails in (False, True))
    await asyncio.sleep(0)
    assert await ends_before(right, stop)
    assert right.result() == 1
    assert await ends_before(wrong, stop)
    assert isinstance(wrong.exception(), ValueError)


async def test_a_cancelled_wait_cancels_the_task() -> None:
    task = asyncio.create_task(asyncio.sleep(60.0))
    waiting = asyncio.create_task(ends_before(task, asyncio.Event()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.cancelled()


async def test_cancelled_tasks_have_ended_and_a_failed_one_keeps_its_error() -> None:
    ended = []

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # a shutdown that takes a turn of the event loop
            ended.append("the first")

    async def fail() -> None:
        raise OSError("away")

    running, failed = asyncio.create_task(run()), asyncio.create_task(fail())
    await asyncio.sleep(0)
    results = await cancel(running, failed)
    assert ended == ["the first"]
    assert [type(result) for result in results] == [asyncio.CancelledError, OSError]
    assert await cancel() == []
