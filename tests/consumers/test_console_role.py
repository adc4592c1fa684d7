"""The console's role: its server, streams and background tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event, func, insert, select
from sqlalchemy.exc import OperationalError

from consumers.console.access import connections
from consumers.console.actions import dead_letters
from consumers.console.background.tasks import roll_up
from consumers.console.data import rollup, stream
from consumers.console.data.store import Store
from consumers.console.replay import Letter
from consumers.console.settings import JobSettings
from consumers.database.console_store import class_hours
from consumers.database.damage import damaged_files
from schemas.transport.backoff import Backoff
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.jobs_rig import fill_job_folder, launcher
from tests.consumers.recorder_rig import CAMERA, Rig, verdict
from tests.consumers.served_console import client, get, serving
from tests.waiting import PATIENCE_S, until


async def test_a_console_without_kafka_and_database_serves_pages_and_reports_both(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, health):
        for page in ("/", "/alerts", "/models", "/system", "/dead-letters", "/health", "/api/v1/cameras"):
            assert (await get(port, page))[0] == 200, page
        assert (await get(port, "/", "evil.example"))[0] == 421
        await until(lambda: "is missing" in str(health.report()[1]["database"]["detail"]))
        well, conditions = health.report()
        assert not well
        assert not conditions["kafka"]["ok"]


async def test_a_console_whose_own_database_does_not_respond_is_not_ready_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.console.background.tasks._FORGOTTEN_S", 0.01)
    is_away = False
    read = Store.removed_cameras

    def read_or_fail(store: Store) -> dict[str, int]:
        if is_away:
            raise OperationalError("select", {}, ConnectionError("refused"))
        return read(store)

    monkeypatch.setattr(Store, "removed_cameras", read_or_fail)
    async with serving(tmp_path) as (_, health):
        await until(lambda: health.report()[1].get("store", {}).get("ok") is True)
        is_away = True
        await until(lambda: "refused" in str(health.report()[1]["store"]["detail"]))
        assert not health.report()[1]["store"]["ok"]
        is_away = False
        await until(lambda: health.report()[1]["store"]["ok"])


async def test_a_damaged_store_of_the_console_is_set_aside_and_a_new_one_begins(tmp_path: Path) -> None:
    file = tmp_path / "console.sqlite"
    async with serving(tmp_path):
        pass
    pages = bytearray(file.read_bytes())
    pages[3 * 4096 : 9 * 4096] = b"\xa5" * (6 * 4096)  # the header and the table of tables are whole
    file.write_bytes(pages)
    async with serving(tmp_path) as (port, health):
        assert (await get(port, "/alerts"))[0] == 200
        await until(lambda: health.report()[1]["store"]["ok"])
    (aside,) = damaged_files(file)
    assert aside.read_bytes() == pages


async def test_a_console_whose_own_database_is_away_at_the_start_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda _: 0.01)
    prepare, tries = Store.prepare, 0

    def fail_twice(store: Store) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OperationalError("select", {}, ConnectionError("refused"))
        prepare(store)

    monkeypatch.setattr(Store, "prepare", fail_twice)
    async with serving(tmp_path) as (port, health):
        assert (await get(port, "/"))[0] == 200
        assert health.report()[1]["store"]["ok"]
    assert tries == 3


async def test_a_stream_may_last_longer_than_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_S", 1.0)
    monkeypatch.setattr(connections, "_POLL_S", 0.05)
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)
    async with serving(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /fleet/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for _ in range(15):
            assert await asyncio.wait_for(reader.readuntil(b"event: alive"), PATIENCE_S)
        writer.close()
        await writer.wait_closed()


async def test_an_answer_that_waits_for_the_database_may_take_longer(
    tmp_path: Path, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> tuple[list[Letter], int]:
        time.sleep(2.5)
        return [], 3

    monkeypatch.setattr(connections, "ANSWER_S", 1.5)
    monkeypatch.setattr(connections, "_POLL_S", 0.05)
    monkeypatch.setattr(dead_letters, "letters", slow)
    async with serving(tmp_path, database=recorder.url) as (port, _), client() as visitor:
        headers = {"authorization": f"Bearer {(tmp_path / 'owner.token').read_text().strip()}"}
        url = f"http://127.0.0.1:{port}/api/v1/dead-letters/replay"
        answer = await visitor.post(url, json={"reason": "bad_pixels"}, headers=headers)
    assert answer.json() == {"outcome": "no frame to send again; 3 recorded meanwhile"}


async def test_a_slow_database_of_the_recorder_delays_no_line_of_the_audit_log(
    console: ConsoleRig, recorder: Rig
) -> None:
    recorder.verdicts([verdict(0)])
    reads, answers = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        reads.set()
        answers.wait(PATIENCE_S)

    event.listen(console.context.recorded.engine(), "before_cursor_execute", wait)
    summing = asyncio.create_task(roll_up(console.context))
    try:
        await until(reads.is_set)
        async with asyncio.timeout(PATIENCE_S / 4):
            await console.context.note("anna", "login", "", "", "logged in")
    finally:
        answers.set()
        summing.cancel()
        await asyncio.gather(summing, return_exceptions=True)


async def test_expired_sums_are_deleted_in_steps_soon_after_the_start(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "PURGE_ROWS", 1)
    monkeypatch.setattr("schemas.runtime.settled_clock.SETTLED_S", 0.0)
    with console.context.store.engine.begin() as connection:
        values = dict.fromkeys(class_hours.columns.keys(), 1)
        connection.execute(insert(class_hours), [values | {"camera": CAMERA, "class_name": str(n)} for n in range(4)])

    def left() -> int:
        with console.context.store.engine.begin() as connection:
            return connection.scalar(select(func.count()).select_from(class_hours)) or 0

    summing = asyncio.create_task(roll_up(console.context))
    try:
        await until(lambda: not left())
    finally:
        summing.cancel()
        await asyncio.gather(summing, return_exceptions=True)


async def test_the_progress_of_a_job_is_pushed_and_a_restart_marks_it_interrupted(tmp_path: Path) -> None:
    jobs = JobSettings(folder=fill_job_folder(tmp_path / "jobs"), publish=(), rollback=())
    async with serving(tmp_path, jobs=jobs) as (port, _), client() as visitor:
        url = f"http://127.0.0.1:{port}"
        token = (tmp_path / "owner.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        started = await visitor.post(f"{url}/api/v1/jobs/publish", json={"bundle": "bundle-sick"}, headers=headers)
        page = f"/jobs/{started.json()['job_id']}"
        pushed = ""
        async with asyncio.timeout(PATIENCE_S), visitor.stream("GET", f"{url}{page}/live") as live:
            async for line in live.aiter_lines():
                pushed += line
                if "3 of 10" in line:
                    break
        assert '<div id="job" hx-swap-oob="outerMorph">' in pushed
    restarted = ConsoleRig(tmp_path, jobs=jobs, launch=launcher("done"))
    assert ">interrupted</span>" in restarted.browser().get(page).text
    restarted.close()


async def test_streams_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_STREAMS", 1)
    async with serving(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"event: session"), PATIENCE_S)
        assert (await get(port, "/live"))[0] == 503
        writer.close()
        await writer.wait_closed()
