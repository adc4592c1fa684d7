"""Servers that answer otherwise than brokers do, or not at all: what the checks before a start make of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_server
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError
from pydantic import SecretStr

from infra.cli import topics
from infra.local import topics as local_topics
from infra.local.mosquitto import _connect, answers_mqtt, mqtt_refusal
from infra.pki import kafka_rights
from infra.preflight import brokers, database
from infra.preflight import kafka_rights as preflight_rights
from infra.preflight.kafka_rights import require_rights
from infra.state_folder import Layout
from schemas.errors import BrokerError
from schemas.transport.access import AUTHORITY_FILE, KafkaAccess, Login, Tls
from schemas.transport.kafka.admin import Cluster


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that reads once and gives this answer. Yields its port."""
    with create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)

        def serve() -> None:
            link, _ = listening.accept()
            with link:
                link.recv(1024)
                link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join(30)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\x20\x03\x00\x00", None),
        (b"\x20\x03\x00\x86", "wrong user or password"),
        (b"\x20\x03\x00\x99", "the broker's reason code is 0x99"),
    ],
)
def test_a_brokers_refusal_has_words_or_its_number(answer: bytes, why: str | None) -> None:
    with answering(answer) as port:
        assert mqtt_refusal("127.0.0.1", port, 30.0, None) == why


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400", b"\x20", b""])
def test_another_server_is_no_broker(answer: bytes) -> None:
    with answering(answer) as port:
        assert not answers_mqtt("127.0.0.1", port, 30.0)


@pytest.mark.parametrize("length", [3, 200])
def test_a_login_of_any_length_is_announced_with_its_bytes(length: int) -> None:
    sent = _connect(Login("u" * length, SecretStr("p" * length)))
    announced, shift, at = 0, 0, 1
    while True:
        announced |= (sent[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if sent[at - 1] < 128:
            break
    assert announced == len(sent) - at
    assert sent.endswith(length.to_bytes(2, "big") + b"u" * length + length.to_bytes(2, "big") + b"p" * length)


def test_a_kafka_that_is_away_has_refused_nobody(fleet: Layout) -> None:
    tls = Tls((fleet.pki / AUTHORITY_FILE).read_text())
    away = ("127.0.0.1", 1)
    brokers._look_for_refusal([away], tls)
    access = KafkaAccess(f"{away[0]}:{away[1]}", tls, Login("bridge", SecretStr("wrong")))
    assert not asyncio.run(brokers._password_refused(access, [away]))


def test_a_postgresql_without_tls_is_not_to_be_trusted(fleet: Layout) -> None:
    root = str(fleet.pki / AUTHORITY_FILE)
    with answering(b"N") as port:
        settings = {"host": "127.0.0.1", "port": str(port), "sslrootcert": root}
        assert database._distrust(settings) == "a server without TLS on this port"
    assert database._distrust({"host": "127.0.0.1", "port": "1"}) is None  # nobody answers there


def test_a_kafka_that_does_not_answer_the_question_of_rights_is_left_to_the_role(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object) -> list[str]:
        raise KafkaConnectionError

    monkeypatch.setattr(preflight_rights, "_missing", away)
    require_rights("127.0.0.1:1", "bridge")

    async def missing(*_: object) -> list[str]:
        return ["write pointillist.frames.v1"]

    monkeypatch.setattr(preflight_rights, "_missing", missing)
    with pytest.raises(BrokerError, match=r"^Kafka at 127\.0\.0\.1:1: .*bridge.* right to write pointillist\.frames"):
        require_rights("127.0.0.1:1", "bridge")


@pytest.mark.parametrize(
    ("error", "refused"), [(GroupAuthorizationFailedError(), True), (KafkaConnectionError(), False), (None, False)]
)
async def test_only_a_refusal_keeps_a_role_out_of_a_group(error: Exception | None, refused: bool) -> None:
    async def coordinator(_: str) -> None:
        if error is not None:
            raise error

    admin: Any = SimpleNamespace(coordinator=coordinator)
    assert await preflight_rights._may_not_join(admin, "processors") is refused


class LeftRights:
    """An admin client of a Kafka that keeps the rights of earlier generations for some calls."""

    calls = 2

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def __aenter__(self) -> LeftRights:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, *requests: object) -> list[SimpleNamespace]:
        LeftRights.calls -= 1
        return [SimpleNamespace(filter_responses=[(0, None)], resources=[1] * (LeftRights.calls > 0)) for _ in requests]


async def test_earlier_rights_are_withdrawn_until_none_is_left_or_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.transport.kafka.admin.Admin", LeftRights)
    monkeypatch.setattr(LeftRights, "calls", 4)
    await kafka_rights.withdraw("127.0.0.1:1", {"bridge": 1})
    assert LeftRights.calls == 0
    monkeypatch.setattr(LeftRights, "calls", 100)
    with pytest.raises(BrokerError, match=r"accept rights within 0 s, got ConnectionError: rights of earlier gen"):
        await kafka_rights.withdraw("127.0.0.1:1", {"bridge": 1}, deadline_s=0.0)


class Nodes(LeftRights):
    """An admin of a Kafka with this many live nodes."""

    count = 1

    async def cluster(self) -> Cluster:
        return Cluster(frozenset(range(self.count)), 0)


@pytest.mark.parametrize(("nodes", "given", "copies"), [(1, None, 1), (2, None, 3), (3, None, 3), (3, 1, 1), (1, 2, 2)])
def test_the_copies_of_new_topics_follow_the_number_of_nodes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nodes: int, given: int | None, copies: int
) -> None:
    made: dict[str, local_topics.TopicSpec] = {}

    async def created(place: object, wanted: dict[str, local_topics.TopicSpec]) -> None:
        made.update(wanted)

    monkeypatch.setattr("schemas.transport.kafka.admin.Admin", Nodes)
    monkeypatch.setattr(Nodes, "count", nodes)
    monkeypatch.setattr(topics, "require_brokers", lambda *_, **__: None)
    monkeypatch.setattr(local_topics, "create_topics", created)
    topics.topics("127.0.0.1:9", replication=given)
    assert {spec.replication for spec in made.values()} == {copies}
    assert capsys.readouterr().out == f"all topics exist; copies of each partition of new ones: {copies}\n"


def test_a_kafka_that_does_not_name_its_nodes_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Nodes):
        async def cluster(self) -> Cluster:
            raise TimeoutError

    monkeypatch.setattr("schemas.transport.kafka.admin.Admin", Silent)
    with pytest.raises(BrokerError, match=r"expected its nodes, got TimeoutError\. Check its log, or set --replic"):
        asyncio.run(local_topics.usual_replication("127.0.0.1:1"))


def test_topics_and_rights_are_made_by_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    def noted(name: str) -> Any:
        async def call(*given: object, **more: object) -> None:
            done.append((name, *given[:1], *more.values()))

        return call

    monkeypatch.setattr(topics, "require_brokers", lambda *_, **__: done.append("asked"))
    monkeypatch.setattr(local_topics, "create_topics", noted("topics"))
    monkeypatch.setattr(kafka_rights, "grant", noted("grant"))
    monkeypatch.setattr(kafka_rights, "withdraw", noted("withdraw"))
    topics.topics("127.0.0.1:9", replication=1, rights=True)
    assert done == ["asked", ("topics", "127.0.0.1:9"), ("grant", "127.0.0.1:9", {}), ("withdraw", "127.0.0.1:9")]
