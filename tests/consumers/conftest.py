"""Databases for the recorder's tests, SQLite in a file and PostgreSQL; recorders on Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from consumers.settings import RecorderSettings
from infra.local.kafka import Kafka
from tests.conftest import TopicFactory
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import MakeRig, Rig
from tests.consumers.scene import RULE, Scene


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def make_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeRig]:
    """Yield a factory of stores that share one database, which is empty at first."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/records.sqlite" if sqlite else request.getfixturevalue("postgresql").url()
    rigs: list[Rig] = []

    def make(**settings: object) -> Rig:
        rigs.append(Rig(tmp_path, url, **settings))  # type: ignore[arg-type]  # the caller names fields of the rig
        return rigs[-1]

    yield make
    if rigs and not sqlite:
        rigs[0].drop()
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """Return a store with the default settings on an empty database."""
    return make_rig()


@pytest_asyncio.fixture
async def scene(kafka: Kafka, kafka_topics: TopicFactory, tmp_path: Path) -> AsyncIterator[Scene]:
    """Yield fresh topics, an empty SQLite database, and recorders on them."""
    settings = RecorderSettings(
        kafka=kafka.bootstrap,
        database=f"sqlite:///{tmp_path}/records.sqlite",
        quarantine=str(tmp_path / "quarantine"),
        evidence=RULE,
    )
    # The names of topics are constants of the product; here each test has its own.
    topics = {
        "verdicts_topic": await kafka_topics(2),
        "events_topic": await kafka_topics(1),
        "dead_letters_topic": await kafka_topics(1),
        "alerts_topic": await kafka_topics(1),
    }
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True) as producer:
        yield Scene(settings.model_copy(update=topics), producer)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Rig]:
    """Yield a store on the database that `console` reads."""
    rig = Rig(tmp_path, f"sqlite:///{tmp_path}/records.sqlite")
    yield rig
    rig.close()


@pytest.fixture
def console(tmp_path: Path, recorder: Rig) -> Iterator[ConsoleRig]:
    """Yield a console that reads the database of `recorder`."""
    rig = ConsoleRig(tmp_path)
    yield rig
    rig.close()
