"""Databases for the recorder's tests, SQLite in a file and PostgreSQL where it is installed; recorders on Kafka."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from consumers.settings import RecorderSettings
from infra.local.kafka import Kafka
from tests.conftest import TopicFactory
from tests.consumers.recorder_rig import MakeRig, Rig
from tests.consumers.scene import RULE, Scene
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own; skips where it is not installed."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    binaries = programs[-1].parent
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pointillist-pg-"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = folder / "data"
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, user=user, cwd=folder, check=True, capture_output=True)
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
        with (folder / "log").open("wb") as output:
            server = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(data), *options],
                user=user,
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        try:

            def listens() -> bool:
                assert server.poll() is None, (folder / "log").read_text()
                return any(folder.glob(".s.PGSQL.*[0-9]"))

            wait_until(listens, "PostgreSQL to listen")
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def make_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeRig]:
    """Makes a store on an empty database; further ones, by the same call, use the same database."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/records.sqlite" if sqlite else str(request.getfixturevalue("postgresql"))
    made: list[Rig] = []

    def make(**settings: object) -> Rig:
        made.append(Rig(tmp_path, url, **settings))  # type: ignore[arg-type]  # the caller names fields of the rig
        return made[-1]

    yield make
    if made and not sqlite:
        made[0].drop()
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """A store with the default settings on an empty database."""
    return make_rig()


@pytest_asyncio.fixture
async def scene(kafka: Kafka, kafka_topics: TopicFactory, tmp_path: Path) -> AsyncIterator[Scene]:
    """Fresh topics, an empty SQLite database, and recorders on them."""
    settings = RecorderSettings(
        kafka=kafka.bootstrap,
        database=f"sqlite:///{tmp_path}/records.sqlite",
        quarantine=str(tmp_path / "quarantine"),
        evidence=RULE,
        verdicts_topic=await kafka_topics(2),
        events_topic=await kafka_topics(1),
        dead_letters_topic=await kafka_topics(1),
        alerts_topic=await kafka_topics(1),
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        yield Scene(settings, producer)
    finally:
        await producer.stop()
