"""The checks before a start, with servers that answer in unexpected ways or not at all."""

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
    """Run a server that reads once and sends this answer. Yield its port."""
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
def test_a_broker_s_refusal_is_reported_by_name_or_by_number(answer: bytes, why: str | None) -> None:
    with answering(answer) as port:
        assert mqtt_refusal("127.0.0.1", port, 30.0, None) == why


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400", b"\x20", b""])
def test_another_kind_of_server_does_not_count_as_a_broker(answer: bytes) -> None:
    with answering(answer) as port:
        assert not answers_mqtt("127.0.0.1", port, 30.0)


@pytest.mark.parametrize("length", [3, 200])
def test_the_packet_length_of_a_login_is_encoded_for_any_length(length: int) -> None:
    sent = _connect(Login("u" * length, SecretStr("p" * length)))
    announced, shift, at = 0, 0, 1
    while True:
        announced |= (sent[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if sent[at - 1] < 128:
            break
    assert announced == len(sent) - at
    assert sent.endswith(length.to_bytes(2, "big") + b"u" * length + length.to_bytes(2, "big") + b"p" * length)


def test_an_unreachable_kafka_does_not_count_as_a_refusal(fleet: Layout) -> None:
    tls = Tls((fleet.pki / AUTHORITY_FILE).read_text())
    closed_port = ("127.0.0.1", 1)
    brokers._look_for_refusal([closed_port], tls)
    access = KafkaAccess(f"{closed_port[0]}:{closed_port[1]}", tls, Login("bridge", SecretStr("wrong")))
    assert not asyncio.run(brokers._password_refused(access, [closed_port]))


def test_a_postgresql_without_tls_is_not_trusted(fleet: Layout) -> None:
    root = str(fleet.pki / AUTHORITY_FILE)
    with answering(b"N") as port:
        settings = {"host": "127.0.0.1", "port": str(port), "sslrootcert": root}
        assert database._distrust(settings) == "a server without TLS on this port"
    assert database._distrust({"host": "127.0.0.1", "port": "1"}) is None  # no server listens there


def test_an_unreachable_kafka_does_not_fail_the_check_of_rights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unreachable(*_: object) -> list[str]:
        raise KafkaConnectionError

    monkeypatch.setattr(preflight_rights, "_missing", unreachable)
    require_rights("127.0.0.1:1", "bridge")

    async def missing(*_: object) -> list[str]:
        return ["write pointillist.frames.v1"]

    monkeypatch.setattr(preflight_rights, "_missing", missing)
    with pytest.raises(BrokerError, match=r"^Kafka at 127\.0\.0\.1:1: .*bridge.* right to write pointillist\.frames"):
        require_rights("127.0.0.1:1", "bridge")


@pytest.mark.parametrize(
    ("error", "refused"), [(GroupAuthorizationFailedError(), True), (KafkaConnectionError(), False), (None, False)]
)
async def test_only_an_authorization_error_counts_as_a_missing_right_to_join(
    error: Exception | None, refused: bool
) -> None:
    async def coordinator(_: str) -> None:
        if error is not None:
            raise error

    admin: Any = SimpleNamespace(coordinator=coordinator)
    assert await preflight_rights._may_not_join(admin, "processors") is refused


class SlowRightsAdmin:
    """A stand-in for an admin client of a Kafka that removes the rights of earlier generations after some calls."""

    calls = 2

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def __aenter__(self) -> SlowRightsAdmin:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, *requests: object) -> list[SimpleNamespace]:
        SlowRightsAdmin.calls -= 1
        return [
            SimpleNamespace(filter_responses=[(0, None)], resources=[1] * (SlowRightsAdmin.calls > 0)) for _ in requests
        ]


async def test_earlier_rights_are_withdrawn_until_none_is_left_or_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.transport.kafka.administration.Admin", SlowRightsAdmin)
    monkeypatch.setattr(SlowRightsAdmin, "calls", 4)
    await kafka_rights.withdraw("127.0.0.1:1", {"bridge": 1})
    assert SlowRightsAdmin.calls == 0
    monkeypatch.setattr(SlowRightsAdmin, "calls", 100)
    with pytest.raises(BrokerError, match=r"accept rights within 0 s, got rights of earlier generations are still"):
        await kafka_rights.withdraw("127.0.0.1:1", {"bridge": 1}, deadline_s=0.0)


class NodesAdmin(SlowRightsAdmin):
    """A stand-in for an admin client of a Kafka with `count` live nodes."""

    count = 1

    async def cluster(self) -> Cluster:
        return Cluster(frozenset(range(self.count)), 0)


@pytest.mark.parametrize(
    ("nodes", "replication", "copies"), [(1, None, 1), (2, None, 3), (3, None, 3), (3, 1, 1), (1, 2, 2)]
)
def test_the_replication_of_new_topics_follows_the_number_of_nodes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nodes: int,
    replication: int | None,
    copies: int,
) -> None:
    created: dict[str, local_topics.TopicSpec] = {}

    async def create_topics(address: object, specs: dict[str, local_topics.TopicSpec]) -> None:
        created.update(specs)

    monkeypatch.setattr("schemas.transport.kafka.admin.Admin", NodesAdmin)
    monkeypatch.setattr(NodesAdmin, "count", nodes)
    monkeypatch.setattr(topics, "require_brokers", lambda *_, **__: None)
    monkeypatch.setattr(local_topics, "create_topics", create_topics)
    topics.topics(kafka="127.0.0.1:9", replication=replication)
    assert {spec.replication for spec in created.values()} == {copies}
    assert capsys.readouterr().out == f"all topics exist; copies of each partition of new ones: {copies}\n"


def test_a_kafka_that_does_not_list_its_nodes_is_one_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(NodesAdmin):
        async def cluster(self) -> Cluster:
            raise TimeoutError

    monkeypatch.setattr("schemas.transport.kafka.admin.Admin", Silent)
    with pytest.raises(BrokerError, match=r"expected its nodes, got TimeoutError\. Check its log, or set --replic"):
        asyncio.run(local_topics.usual_replication("127.0.0.1:1"))


def test_one_command_creates_topics_and_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def recorded(name: str) -> Any:
        async def call(*arguments: object, **options: object) -> None:
            calls.append((name, *arguments[:1], *options.values()))

        return call

    monkeypatch.setattr(topics, "require_brokers", lambda *_, **__: calls.append("checked"))
    monkeypatch.setattr(local_topics, "create_topics", recorded("topics"))
    monkeypatch.setattr(kafka_rights, "grant", recorded("grant"))
    monkeypatch.setattr(kafka_rights, "withdraw", recorded("withdraw"))
    topics.topics(kafka="127.0.0.1:9", replication=1, rights=True)
    assert calls == ["checked", ("topics", "127.0.0.1:9"), ("grant", "127.0.0.1:9", {}), ("withdraw", "127.0.0.1:9")]
