"""Fixtures: brokers and a PostgreSQL with TLS and access rights."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from benchmarks.harness.postgresql import passing_folder
from benchmarks.harness.services import started
from infra.local.topics import create_topics, pointillist_topics
from infra.pki.authority import Authority
from infra.pki.kafka_rights import grant
from infra.state_folder import Layout
from tests.infra.secure import make_fleet, running_mosquitto
from tests.infra.secure_kafka import KafkaWithPasswords
from tests.infra.secure_postgresql import SecurePostgreSQL


@pytest.fixture
def no_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of settings and secrets for one test."""
    for name in [name for name in os.environ if name.startswith("POINTILLIST_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka_fleet(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Create the authority whose certificates `secure_kafka` and `secure_postgresql` accept."""
    return make_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session")
def secure_kafka(kafka_fleet: Layout) -> Iterator[KafkaWithPasswords]:
    """Yield a Kafka with the topics of `pointillist`, in two partitions each, and the rights of its roles."""
    with started(KafkaWithPasswords(kafka_fleet.folder, pki=kafka_fleet.pki)) as kafka:
        asyncio.run(create_topics(kafka.access("admin"), pointillist_topics(2)))
        asyncio.run(grant(kafka.access("admin")))
        yield kafka


@pytest.fixture(scope="session")
def secure_postgresql(kafka_fleet: Layout) -> Iterator[SecurePostgreSQL]:
    """Yield a PostgreSQL with a certificate of `kafka_fleet` for the name `localhost`, without an IP address."""
    with passing_folder() as folder:
        issued = Authority(kafka_fleet.pki).issue("postgresql", hosts=["localhost"], client=False)
        with started(SecurePostgreSQL(folder, issued)) as server:
            yield server


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Create an authority for the tests of one module."""
    return make_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def broker(fleet: Layout) -> Iterator[tuple[str, int]]:
    """Yield the address of a mosquitto that `roles.json` of `fleet` lists, as `up` writes it."""
    with running_mosquitto(fleet) as address:
        yield address
