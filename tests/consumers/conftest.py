"""Databases for the recorder's tests, SQLite in a file and PostgreSQL; recorders on Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from benchmarks.harness.postgresql import PostgreSQL
from consumers.console.access.users import _COST as PASSWORD_COST
from consumers.settings import RecorderSettings
from infra.local.kafka import Kafka
from infra.monitor.alert_notifier import AlertNotifier
from tests.conftest import TopicFactory
from tests.consumers.alertmanager_stand_in import AlertmanagerStandIn, MakeNotifier
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import MakeRig, Rig, new_database
from tests.consumers.scene import RULE, Scene


@pytest.fixture(autouse=True, scope="module")
def cheap_passwords() -> Iterator[None]:
    """Hash passwords at the lowest cost. The usual one would slow down each login and each written user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumers.console.access.users._COST", 2)
        yield


@pytest.fixture
def costly_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords at the usual cost, for tests of the load that they cause."""
    monkeypatch.setattr("consumers.console.access.users._COST", PASSWORD_COST)


@pytest.fixture(scope="session")
def postgresql_records(postgresql: PostgreSQL) -> str:
    """Return the URL of a PostgreSQL database for `make_rig`, which creates the tables once and empties them later."""
    return postgresql.create("records")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def make_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeRig]:
    """Yield a factory of stores that share one database, which has no records at first."""
    sqlite = request.param == "sqlite"
    url = new_database(tmp_path / "records.sqlite") if sqlite else request.getfixturevalue("postgresql_records")
    rigs: list[Rig] = []

    def make(**settings: object) -> Rig:
        rigs.append(Rig(tmp_path, url, **settings))  # type: ignore[arg-type]  # the caller names fields of the rig
        return rigs[-1]

    yield make
    if rigs and not sqlite:
        rigs[0].empty()
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
        scene = Scene(settings.model_copy(update=topics), producer)
        yield scene
        scene.close()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Rig]:
    """Yield a store on the database that `console` reads."""
    rig = Rig(tmp_path, new_database(tmp_path / "records.sqlite"))
    yield rig
    rig.close()


@pytest.fixture
def console(tmp_path: Path, recorder: Rig) -> Iterator[ConsoleRig]:
    """Yield a console that reads the database of `recorder`."""
    rig = ConsoleRig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def bare_rig(tmp_path: Path) -> Iterator[ConsoleRig]:
    """Yield a console without a recorder's database."""
    rig = ConsoleRig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def manager() -> AlertmanagerStandIn:
    """Return the Alertmanager of `make_notifier`."""
    return AlertmanagerStandIn()


@pytest.fixture
def make_notifier(manager: AlertmanagerStandIn) -> Iterator[MakeNotifier]:
    """Yield a factory of notifiers that post to `manager`."""
    made: list[AlertNotifier] = []
    with pytest.MonkeyPatch.context() as patch:

        def make(database: str, **options: Any) -> AlertNotifier:
            made.append(AlertNotifier("http://x", database, **options))
            patch.setattr(made[-1], "_client", manager)
            return made[-1]

        yield make
    for notifier in made:
        notifier.close()
