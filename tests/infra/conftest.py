"""Brokers and a PostgreSQL with TLS and rights, for all tests that need them."""

from __future__ import annotations

import asyncio
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


@pytest.fixture(scope="session")
def kafka_fleet(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The authority that `secure_kafka` knows everybody by."""
    return make_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session")
def secure_kafka(kafka_fleet: Layout) -> Iterator[KafkaWithPasswords]:
    """With the topics of `pointillist`, of two partitions, and the rights of its roles."""
    with started(KafkaWithPasswords(kafka_fleet.folder, pki=kafka_fleet.pki)) as kafka:
        asyncio.run(create_topics(kafka.access("admin"), pointillist_topics(2)))
        asyncio.run(grant(kafka.access("admin")))
        yield kafka


@pytest.fixture(scope="session")
def secure_postgresql(kafka_fleet: Layout) -> Iterator[SecurePostgreSQL]:
    """With a certificate of the same authority, for `localhost` and no address."""
    with passing_folder() as folder:
        issued = Authority(kafka_fleet.pki).issue("postgresql", hosts=["localhost"], client=False)
        with started(SecurePostgreSQL(folder, issued)) as server:
            yield server


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An authority of the module's own."""
    return make_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def broker(fleet: Layout) -> Iterator[tuple[str, int]]:
    """A mosquitto of that fleet, in its `roles.json` as `up` writes it."""
    with running_mosquitto(fleet) as place:
        yield place
