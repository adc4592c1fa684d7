"""The local brokers that `up` runs: a real mosquitto and a real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from infra.local import mosquitto as mosquitto_module
from infra.local import programs
from infra.local.alertmanager import Alertmanager
from infra.local.kafka import Kafka
from infra.local.mosquitto import MAX_CONNECTIONS, TEMPLATE, Mosquitto, answers_mqtt
from infra.local.ports import LOOPBACK, is_free
from infra.local.process import ProcessId
from infra.local.service import Service
from infra.local.topics import TopicSpec, create_topics
from schemas.clock import unix_ms
from schemas.errors import BrokerError
from schemas.limits import MAX_MESSAGE_BYTES
from schemas.transport.kafka.admin import Admin
from tests.infra.command_line import refusal, run
from tests.waiting import PATIENCE_S, until

TopicFactory = Callable[..., Awaitable[str]]

ROOT = Path(__file__).parents[2]
WAIT_S = PATIENCE_S


class Subscriber:
    """An MQTT 5 client that collects payloads and, with `manual_ack`, never acknowledges them."""

    def __init__(self, broker: Mosquitto, name: str, *, manual_ack: bool = False) -> None:
        self.payloads: list[bytes] = []
        self._arrived = threading.Condition()
        self._subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTv5, manual_ack=manual_ack)
        self.client.on_message = self._collect
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        session.SessionExpiryInterval = 600
        self.client.connect(broker.host, broker.port, clean_start=False, properties=session)
        self.client.subscribe("things/#", 1)
        self.client.loop_start()
        assert self._subscribed.wait(WAIT_S)

    def _collect(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        with self._arrived:
            self.payloads.append(bytes(message.payload))
            self._arrived.notify()

    def wait_for_payloads(self, count: int) -> list[bytes]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.payloads) >= count, WAIT_S), len(self.payloads)
            return self.payloads

    def disconnect(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def publish(broker: Mosquitto, payloads: list[bytes], *, retain: bool = False) -> None:
    client = Client(CallbackAPIVersion.VERSION2, "publisher", protocol=MQTTv5)
    client.max_queued_messages_set(0)
    client.connect(broker.host, broker.port)
    client.loop_start()
    for info in [client.publish("things/a", payload, 1, retain) for payload in payloads]:
        info.wait_for_publish(WAIT_S)
        assert info.is_published()
    client.disconnect()
    client.loop_stop()


async def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, max_request_size=2**24
    ) as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    values: list[bytes] = []
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_bytes=2**25
    ) as consumer:
        async with asyncio.timeout(WAIT_S):
            while len(values) < count:
                batches = await consumer.getmany(timeout_ms=200)
                values += [record.value for batch in batches.values() for record in batch]
    return values


@pytest.mark.brokers
def test_mosquitto_sends_more_than_twenty_messages_without_acknowledgement(mosquitto: Mosquitto) -> None:
    sent = [b"%d" % number for number in range(3000)]
    late = Subscriber(mosquitto, "late", manual_ack=True)
    publish(mosquitto, sent)
    assert late.wait_for_payloads(len(sent)) == sent
    late.disconnect()


@pytest.mark.brokers
def test_mosquitto_bounds_the_bytes_that_it_holds_for_a_client(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = re.compile(r"^(max_inflight_bytes|max_queued_bytes) (\d+)$", re.MULTILINE)
    text = TEMPLATE.read_text()
    assert sum(int(bytes_) for _, bytes_ in limit.findall(text)) == 512 * 2**20
    smaller = tmp_path / "mosquitto.conf.in"
    smaller.write_text(limit.sub(lambda found: f"{found[1]} {int(found[2]) // 64}", text))
    monkeypatch.setattr(mosquitto_module, "TEMPLATE", smaller)
    broker = Mosquitto(state_dir)
    broker.start()
    try:
        unread = Subscriber(broker, "unread", manual_ack=True)
        held: list[MQTTMessage] = []
        unread.client.on_message = lambda _client, _data, message: held.append(message)
        publish(broker, [bytes(2**20)] * 16)
        count = -1
        while len(held) > count:  # the answer to a subscription comes behind all messages that are on their way
            for message in held[max(count, 0) :]:
                unread.client.ack(message.mid, 1)
            count = len(held)
            answered = threading.Event()
            unread.client.on_subscribe = lambda *_, done=answered: done.set()
            unread.client.subscribe("answer", 1)
            assert answered.wait(WAIT_S)
        unread.disconnect()
    finally:
        broker.stop()
    assert 7 <= count <= 9  # 512 MiB / 64


@pytest.mark.brokers
def test_mosquitto_keeps_all_messages_of_an_absent_session_over_a_restart(mosquitto: Mosquitto) -> None:
    Subscriber(mosquitto, "absent").disconnect()
    sent = [b"%d" % number for number in range(3000)]
    publish(mosquitto, sent)
    port = mosquitto.port
    mosquitto.restart()
    assert mosquitto.port == port
    back = Subscriber(mosquitto, "absent")
    assert back.wait_for_payloads(len(sent)) == sent
    back.disconnect()


@pytest.mark.brokers
def test_mosquitto_forwards_the_largest_message(mosquitto: Mosquitto) -> None:
    large = os.urandom(1024) * (MAX_MESSAGE_BYTES // 1024)
    subscriber = Subscriber(mosquitto, "large")
    publish(mosquitto, [large])
    assert subscriber.wait_for_payloads(1) == [large]
    subscriber.disconnect()


@pytest.mark.brokers
def test_a_killed_mosquitto_restarts_on_its_port_and_a_paused_one_does_not_answer(mosquitto: Mosquitto) -> None:
    port = mosquitto.port
    mosquitto.kill()
    assert mosquitto.poll() == -signal.SIGKILL
    assert not answers_mqtt(mosquitto.host, port)
    mosquitto.start()
    assert mosquitto.port == port
    mosquitto.pause()
    assert not answers_mqtt(mosquitto.host, port, timeout_s=0.3)
    mosquitto.resume()
    assert answers_mqtt(mosquitto.host, port, timeout_s=WAIT_S)


@pytest.mark.brokers
def test_mosquitto_uses_another_port_if_its_port_is_in_use(state_dir: Path) -> None:
    first = Mosquitto(state_dir)
    first.start()
    first.stop()
    with socket.create_server((LOOPBACK, first.port)):
        second = Mosquitto(state_dir)
        second.start()
        assert second.port != first.port
        second.stop()


@pytest.mark.brokers
def test_mosquitto_may_open_a_file_for_each_camera_whatever_limit_it_inherits(state_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    broker = Mosquitto(state_dir)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))  # the usual limit of a login or a service
        process = broker.start()
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] >= min(MAX_CONNECTIONS, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        broker.stop()


@pytest.mark.parametrize(("known", "name"), [({os.geteuid(): "owner"}, "owner"), ({}, str(os.geteuid()))])
def test_mosquitto_runs_as_the_user_of_the_process_in_any_environment(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, known: dict[int, str], name: str
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "nobody")
    monkeypatch.setattr(pwd, "getpwuid", lambda user: SimpleNamespace(pw_name=known[user]))
    broker = Mosquitto(state_dir)
    broker.folder.mkdir(parents=True)
    broker.reserve()
    broker._command()
    assert f"\nuser {name}\n" in (broker.folder / "mosquitto.conf").read_text()


@pytest.mark.brokers
def test_a_reserved_port_is_used_unless_another_program_takes_it(state_dir: Path) -> None:
    broker = Mosquitto(state_dir)
    reserved = broker.reserve()
    with socket.create_server((LOOPBACK, broker.port)):
        broker.start()
    assert broker.listen != reserved
    broker.stop()
    restarted = Mosquitto(state_dir)
    reserved = restarted.reserve()
    restarted.start()
    assert restarted.listen == restarted.reserve() == reserved
    restarted.stop()


@pytest.mark.brokers
def test_the_error_names_the_port_if_another_program_takes_it_after_a_first_start(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Mosquitto(state_dir)
    broker.start()
    broker.stop()
    monkeypatch.setattr(broker, "_ready_s", 1.0)
    with socket.create_server((LOOPBACK, broker.port)), pytest.raises(BrokerError, match=f"port {broker.port}"):
        broker.start()


def test_a_server_gets_no_secret_of_the_environment(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "POINTILLIST_FLEET_SECRET", "HTTPS_PROXY")
    for name in (*secrets, "JAVA_TOOL_OPTIONS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "1")
    for server in (Mosquitto(state_dir), Kafka(state_dir)):
        environment = server._environment()
        assert environment.keys().isdisjoint(secrets)
        assert environment["XDG_CACHE_HOME"] == "1"
        assert ("JAVA_TOOL_OPTIONS" in environment) == isinstance(server, Kafka)
    assert Alertmanager(state_dir)._environment()["HTTPS_PROXY"] == "1"


def test_a_service_that_listens_and_never_answers_is_started_once_and_killed(state_dir: Path) -> None:
    started = []

    class Mute(Service):
        role = "mute"
        port_names = ("mute",)

        def _command(self) -> list[str]:
            started.append(self.port)
            listen = f"import socket, time; held = socket.create_server(({LOOPBACK!r}, {self.port})); time.sleep(600)"
            return [sys.executable, "-S", "-c", listen]

        def _answers(self) -> bool:
            return False

    service = Mute(state_dir, ready_s=3)
    with pytest.raises(BrokerError, match="within 3 s, got none"):
        service.start()
    assert len(started) == 1
    assert is_free(started[0])


@pytest.mark.brokers
@pytest.mark.parametrize("damage", [lambda whole: whole[:-1], lambda whole: bytes(len(whole))], ids=["cut", "zeros"])
def test_mosquitto_sets_a_damaged_database_aside_and_starts(state_dir: Path, damage: Callable[[bytes], bytes]) -> None:
    lines: list[str] = []
    broker = Mosquitto(state_dir, print_line=lines.append)
    broker.start()
    port = broker.port
    publish(broker, [b"kept"], retain=True)
    broker.stop()
    database = broker.folder / "data" / "mosquitto.db"
    damaged = damage(database.read_bytes())
    database.write_bytes(damaged)
    broker.start()
    try:
        assert broker.port == port
        (aside,) = database.parent.glob("mosquitto.db.damaged-*")
        assert aside.read_bytes() == damaged
        (line,) = lines
        assert str(database) in line
        assert aside.name in line
        publish(broker, [b"new"], retain=True)
        broker.restart()
        assert len(lines) == 1
    finally:
        broker.stop()


@pytest.mark.brokers
def test_a_failed_start_quotes_the_log(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = state_dir / "broken.conf.in"
    broken.write_text("no_such_option true\n")
    monkeypatch.setattr(mosquitto_module, "TEMPLATE", broken)
    with pytest.raises(BrokerError, match="no_such_option"):
        Mosquitto(state_dir).start()


@pytest.mark.brokers
def test_sigkill_of_the_supervisor_ends_mosquitto(state_dir: Path) -> None:
    program = f"""
import os
from pathlib import Path
from infra.local.mosquitto import Mosquitto
process = Mosquitto(Path({str(state_dir)!r})).start()
print(process.pid, process.started, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert ProcessId(*map(int, done.stdout.split())).wait_gone(WAIT_S)


@pytest.mark.brokers
@pytest.mark.parametrize("existing", [False, True], ids=["new topic", "topic of an earlier version"])
async def test_a_record_has_the_time_of_kafka_and_not_of_its_sender(kafka: Kafka, existing: bool) -> None:
    topic, day_ms = f"test-{uuid.uuid4().hex}", 24 * 3600 * 1000
    settings = {} if existing else TopicSpec().settings()
    async with Admin(kafka.bootstrap) as admin:
        assert (await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)]))[topic][0] == 0
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        sent = await producer.send_and_wait(topic, b"frame", partition=0, timestamp_ms=unix_ms() - 2 * day_ms)
    assert abs(sent.timestamp - unix_ms()) < day_ms


@pytest.mark.brokers
async def test_kafka_forwards_the_largest_message(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics()
    large = os.urandom(1024) * (MAX_MESSAGE_BYTES // 1024)
    await produce(kafka.bootstrap, topic, [large])
    assert await consume(kafka.bootstrap, topic, 1) == [large]


@pytest.mark.brokers
async def test_kafka_in_a_folder_with_any_name_keeps_its_records_after_a_kill_and_if_its_ports_change(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LANG", "LC_ALL"):  # the locale of an ssh client that this machine lacks has the same effect
        monkeypatch.setenv(variable, "C")
    folder = state_dir / "jürgen"
    first = Kafka(folder)
    await asyncio.to_thread(first.start)
    await create_topics(first.bootstrap, {"kept": TopicSpec()})
    await produce(first.bootstrap, "kept", [b"before"])
    bootstrap = first.bootstrap
    first.kill()
    await asyncio.to_thread(first.start)
    assert first.bootstrap == bootstrap
    await produce(first.bootstrap, "kept", [b"after"])
    first.stop()
    taken = [socket.create_server((LOOPBACK, port)) for port in first._ports.values()]
    assert (first.data / "meta.properties").is_file()
    second = Kafka(folder)
    try:
        await asyncio.to_thread(second.start)
        assert not set(second._ports.values()) & set(first._ports.values())
        assert await consume(second.bootstrap, "kept", 2) == [b"before", b"after"]
    finally:
        second.stop()
        for server in taken:
            server.close()


@pytest.mark.brokers
async def test_topics_are_created_once(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics(3)
    await create_topics(kafka.bootstrap, {topic: TopicSpec(5), f"{topic}-new": TopicSpec(2)})
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()

    async def partitions() -> dict[str, int]:
        # The leader confirms a topic before the queried broker has the metadata.
        return {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics([topic, f"{topic}-new"])}

    async def have_metadata() -> bool:
        return min((await partitions()).values()) > 0

    try:
        await until(have_metadata, "the metadata of both topics")
        assert await partitions() == {topic: 3, f"{topic}-new": 2}
    finally:
        await admin.close()


@pytest.mark.brokers
async def test_a_topic_that_kafka_rejects_is_named(kafka: Kafka) -> None:
    with pytest.raises(BrokerError, match=r"Kafka at .*: expected it to create no/slash"):
        await create_topics(kafka.bootstrap, {"no/slash": TopicSpec()})


async def test_creating_topics_without_a_kafka_is_an_error() -> None:
    with pytest.raises(BrokerError, match=r"Kafka at 127\.0\.0\.1:1: expected "):
        await create_topics("127.0.0.1:1", {"any": TopicSpec()}, deadline_s=0.3)


def test_a_missing_mosquitto_names_its_package(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "SYSTEM_PATH", "/nonexistent")
    with pytest.raises(BrokerError, match="Debian package mosquitto"):
        Mosquitto(state_dir).start()


@pytest.mark.parametrize("version", ["2.1.2", "1.6.9", None])
def test_up_and_doctor_reject_an_unsupported_release_of_mosquitto_before_anything_starts(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    program = state_dir / "bin" / "mosquitto"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + (f"echo 'mosquitto version {version}'\n" if version else ""))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    line = refusal(run("up", "--state", state_dir / "new"))
    got = version or "no version"
    assert line.startswith(f"mosquitto: expected release 2.0, whose rights accept cameras, got {got} of {program}. ")
    assert not (state_dir / "new").exists()
    parts = json.loads(run("doctor", "--state", state_dir, "--json").stdout)["parts"]
    (found,) = (part for part in parts if part["what"] == "mosquitto")
    assert (found["ok"], found["needed"], found["found"]) == (False, True, line)


@pytest.mark.parametrize("missing", ["java", "maven"])
def test_missing_java_or_maven_names_its_package(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(state_dir / "cache"))
    programs = state_dir / "bin"
    programs.mkdir()
    if missing == "maven":
        (programs / "java").write_text("#!/bin/sh\n")
        (programs / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(BrokerError, match="default-jre-headless" if missing == "java" else "Debian package maven"):
        Kafka(state_dir).start()
