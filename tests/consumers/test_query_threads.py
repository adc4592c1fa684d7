"""Queries of pages while a database hangs: the wait is bounded, other pages are served, and the health names it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from html import unescape
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from benchmarks.harness.postgresql import USER, PostgreSQL
from consumers.console.data.store import Store
from consumers.console.query_threads import QueryThreads
from consumers.database.engine import open_engine
from schemas.errors import BrokerError
from schemas.waiting import cancel
from tests.consumers.console_rig import raise_alert
from tests.consumers.recorder_rig import Rig
from tests.consumers.served_console import get, serving
from tests.waiting import until

AWAY = "the recorder's database does not respond"


async def test_a_query_that_takes_too_long_is_given_up_and_one_that_waits_behind_it_never_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.console.query_threads.PATIENCE_S", 0.1)
    monkeypatch.setattr("consumers.console.query_threads.SHORT_PATIENCE_S", 0.05)
    threads, answers, ran = QueryThreads(1, "test", "the database"), threading.Event(), list[str]()
    try:
        for query in (answers.wait, lambda: ran.append("behind")):
            with pytest.raises(BrokerError, match="the database does not respond"):
                await threads(query)
        monkeypatch.setattr("consumers.console.query_threads.PATIENCE_S", 60.0)
        answers.set()
        await until(lambda: not threads._late)
        await threads(ran.append, "after")
        assert ran == ["after"]
    finally:
        answers.set()
        threads.close()


@pytest.fixture
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a query be abandoned within the test only after a short wait."""
    monkeypatch.setattr("consumers.console.query_threads.PATIENCE_S", 600.0)
    monkeypatch.setattr("consumers.console.query_threads.SHORT_PATIENCE_S", 0.05)


@pytest.mark.usefixtures("long_patience")
async def test_after_a_slow_failure_a_query_is_abandoned_soon() -> None:
    threads, answers = QueryThreads(1, "test", "the database"), threading.Event()

    def fail_slowly() -> None:
        time.sleep(0.06)
        raise ConnectionError("no answer")

    try:
        with pytest.raises(ConnectionError):
            await threads(fail_slowly)
        with pytest.raises(BrokerError, match="does not respond"):
            await asyncio.wait_for(threads(answers.wait), 30)
    finally:
        answers.set()
        threads.close()


@pytest.mark.usefixtures("long_patience")
async def test_while_the_query_of_a_visitor_who_left_runs_a_query_is_abandoned_soon() -> None:
    threads, answers, begun = QueryThreads(1, "test", "the database"), threading.Event(), threading.Event()

    def wait_for_answers() -> None:
        begun.set()
        answers.wait()

    try:
        visit = asyncio.ensure_future(threads(wait_for_answers))
        await until(begun.is_set)
        await cancel(visit)
        with pytest.raises(BrokerError, match="does not respond"):
            await asyncio.wait_for(threads(answers.wait), 30)
    finally:
        answers.set()
        threads.close()


@pytest.mark.xdist_group("postgresql")
async def test_a_table_that_hangs_holds_up_neither_other_pages_nor_the_health(
    postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.console.query_threads.PATIENCE_S", 1.0)
    monkeypatch.setattr("consumers.console.query_threads.SHORT_PATIENCE_S", 5.0)  # a busy machine reads the quarantine
    monkeypatch.setattr("consumers.console.database_poller.LATE_S", 0.5)
    url = postgresql.create("hangs")
    recorder = Rig(tmp_path, url)
    raise_alert(recorder)
    recorder.close()
    async with serving(tmp_path, database=url) as (port, health):
        await until(lambda: health.report()[1]["database"]["ok"])
        with psycopg.connect(
            host=postgresql.host, port=postgresql.port, user=USER, dbname=make_url(url).database
        ) as other:
            other.execute("LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE")
            status, page = await get(port, "/alerts")
            assert (status, AWAY.capitalize() in unescape(page.decode())) == (200, True)
            status, page = await get(port, "/quarantine")
            assert (status, AWAY.capitalize() in unescape(page.decode())) == (200, False)
            status, page = await get(port, "/api/v1/alerts")
            assert (status, AWAY in page.decode()) == (503, True)
            assert (await get(port, "/health"))[0] == 200
            await until(lambda: not health.report()[1]["database"]["ok"])
            assert str(health.report()[1]["database"]["detail"]).startswith("no response for ")
        monkeypatch.undo()
        await until(lambda: health.report()[1]["database"]["ok"])
        assert (await get(port, "/api/v1/alerts"))[0] == 200


async def test_the_health_names_an_own_database_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.console.background.tasks._FORGOTTEN_S", 0.01)
    monkeypatch.setattr("consumers.console.background.tasks.LATE_S", 0.1)
    answers, read = threading.Event(), Store.removed_cameras
    answers.set()

    def hang_or_read(store: Store) -> dict[str, int]:
        answers.wait()
        return read(store)

    monkeypatch.setattr(Store, "removed_cameras", hang_or_read)
    try:
        async with serving(tmp_path) as (_, health):
            await until(lambda: health.report()[1].get("store", {}).get("ok") is True)
            answers.clear()
            await until(lambda: not health.report()[1]["store"]["ok"])
            assert str(health.report()[1]["store"]["detail"]).startswith("no response for ")
            answers.set()
            await until(lambda: health.report()[1]["store"]["ok"])
    finally:
        answers.set()


@pytest.mark.xdist_group("postgresql")
async def test_a_connection_notices_within_seconds_that_its_server_has_vanished(postgresql: PostgreSQL) -> None:
    engine = open_engine(postgresql.url(), writes=False)
    try:
        with engine.begin() as connection:
            number = connection.connection.driver_connection.fileno()  # type: ignore[union-attr]  # psycopg's
            with socket.socket(fileno=os.dup(number)) as link:
                options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT]
                assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert [link.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [10, 5, 10_000]
    finally:
        engine.dispose()
