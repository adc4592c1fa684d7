"""Access to one running system: a stolen role certificate is refused, a camera of another machine is accepted.

127.0.0.2 stands for the other machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from benchmarks.harness.system import RunningSystem
from benchmarks.harness.videos import shades, write_video
from infra.audit.audit import audit as count_frames
from infra.pki.enrolment import Enrolment
from infra.pki.roles import role_folder, role_tls
from infra.preflight.brokers import require_mqtt
from infra.state_folder import Layout
from schemas.errors import BrokerError
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAccess, Tls, kafka_options
from schemas.transport.kafka.clients import start_client
from tests.commands import run_command
from tests.infra.secure import WAIT_S, MqttVisitor
from tests.system.records import await_more_recorded, recorded_frames
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]
REMOTE = "site/door"


def steal_certificate(state: Path, role: str, to: Path) -> Tls:
    """Copy the key and the certificate of a role, as a thief would, and return the copies."""
    shutil.copytree(role_folder(Layout(state).pki, role), to)
    return Tls.of_folder(to)


def address_of(system: RunningSystem, role: str) -> tuple[str, int]:
    host, _, port = system.roles()[role]["listen"].rpartition(":")
    return host, int(port)


def revoke(state: Path, role: str) -> str:
    done = run_command("revoke", "--role", role, "--within", 60, "--state", state, within_s=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def can_create_topic(address: KafkaAccess) -> bool:
    """Return whether Kafka lets the client create a topic, which takes the rights of a super user."""
    admin = AIOKafkaAdminClient(**kafka_options(address))
    try:
        await start_client(admin)
        answer: Any = await admin.create_topics([NewTopic(f"pointillist.stolen-{time.time_ns()}.v1", 1, 1)])
        return not any(error[1] for error in answer.topic_errors)
    except (ClusterAuthorizationFailedError, TopicAuthorizationFailedError):
        return False
    finally:
        await admin.close()


async def can_write(producer: AIOKafkaProducer) -> bool:
    """Return whether Kafka accepts a record of the producer."""
    try:
        await producer.send_and_wait(KafkaTopic.EVENTS.value, b"stolen", key=b"local/cam-0", partition=0)
    except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError):
        return False
    return True


def test_both_brokers_refuse_a_revoked_admin_while_frames_are_recorded(system: RunningSystem, tmp_path: Path) -> None:
    await_more_recorded(system)
    stolen = steal_certificate(system.state, "admin", tmp_path / "stolen")
    mqtt = address_of(system, "mosquitto")
    kafka = system.roles()["kafka"]["listen"]
    with MqttVisitor(mqtt, stolen) as thief:
        assert asyncio.run(can_create_topic(KafkaAccess(kafka, stolen)))
        revoke(system.state, "admin")
        assert thief.disconnected.wait(WAIT_S)
    with pytest.raises(BrokerError, match="our certificate has been revoked"):
        require_mqtt(mqtt, WAIT_S, stolen)
    assert not asyncio.run(can_create_topic(KafkaAccess(kafka, stolen)))
    own = Tls.of_folder(role_folder(Layout(system.state).pki, "admin"))
    require_mqtt(mqtt, WAIT_S, own)
    assert asyncio.run(can_create_topic(KafkaAccess(kafka, own)))
    await_more_recorded(system)


def test_both_brokers_refuse_a_revoked_bridge_while_frames_are_recorded(system: RunningSystem, tmp_path: Path) -> None:
    await_more_recorded(system)
    stolen = steal_certificate(system.state, "bridge", tmp_path / "stolen")
    mqtt = address_of(system, "mosquitto")
    pid = system.await_role("bridge")

    async def write_while_revoked() -> None:
        producer = AIOKafkaProducer(**kafka_options(KafkaAccess(system.roles()["kafka"]["listen"], stolen)))
        await start_client(producer)
        try:
            assert await can_write(producer)
            await asyncio.to_thread(revoke, system.state, "bridge")
            # The revocation also applies to the open connection.
            assert not await can_write(producer)
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()

    asyncio.run(write_while_revoked())
    with pytest.raises(BrokerError, match="our certificate has been revoked"):
        require_mqtt(mqtt, WAIT_S, stolen)
    assert system.await_role("bridge", but_not=pid) != pid
    await_more_recorded(system)
    assert count_frames(Layout(system.state)).counts().frames_lost == 0


def pointillist(*arguments: object, folder: Path) -> str:
    """Run a command in a folder, without this project's environment variables. Return its output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POINTILLIST_")}
    done = run_command(*arguments, environment=clean, folder=folder, within_s=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_camera_with_only_its_enrolment_is_recorded(system: RunningSystem, tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.mkdir()
    layout = Layout(system.state)
    pointillist("enroll", REMOTE, "--state", system.state, "--out", device / "door.enrolment", folder=tmp_path)
    broker = Enrolment.read(device / "door.enrolment").mqtt
    assert broker is not None
    assert broker.startswith("127.0.0.2:")
    write_video(device / "door.mp4", shades(20, 48, 32))
    pointillist(
        "camera", "attach", "door.mp4", "--enrolment", "door.enrolment", "--spool", "spool", "--fps", "5",
        "--drain-s", "200",
        folder=device,
    )  # fmt: skip
    wait_until(
        lambda: recorded_frames(layout, REMOTE) >= 8, "frames of the camera in the database", within_s=60, every_s=0.2
    )
    # The roles of this machine still use the loopback address.
    host, _, port = system.roles()["mosquitto"]["listen"].rpartition(":")
    assert host == "127.0.0.1"
    require_mqtt((host, int(port)), WAIT_S, role_tls(layout.pki, "health"))
