"""A role's certificate in other hands is refused by both running brokers, and the system goes on without it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from infra.audit import audit as count_frames
from infra.layout import Layout
from infra.local.process import COMMAND
from infra.pki.roles import role_folder
from infra.reach import require_mqtt
from infra.up.background import RunningSystem
from schemas.errors import BrokerError
from schemas.runtime.access import KafkaAccess, Tls, kafka_options
from schemas.runtime.kafka_clients import start
from schemas.topics import KafkaTopic
from tests.infra.secure import Visitor
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[RunningSystem]:
    options = ("--cameras", 2, "--fps", 5, "--no-prometheus", "--drain-s", 60)
    with RunningSystem(tmp_path / "state", *options) as running:
        running.await_role("fleet")
        yield running


def copied(state: Path, role: str, to: Path) -> Tls:
    """The files of a role as a thief has copied them."""
    shutil.copytree(role_folder(Layout(state).pki, role), to)
    return Tls.of_folder(to)


def place(system: RunningSystem, role: str) -> tuple[str, int]:
    host, _, port = system.roles()[role]["listen"].rpartition(":")
    return host, int(port)


def revoke(state: Path, role: str) -> str:
    done = subprocess.run(
        [*COMMAND, "revoke", "--role", role, "--state", str(state)],
        check=False, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def makes_a_topic(address: KafkaAccess) -> bool:
    """Whether a super user's work is done for this client."""
    admin = AIOKafkaAdminClient(**kafka_options(address))
    try:
        await start(admin)
        answer: Any = await admin.create_topics([NewTopic(f"pointillist.stolen-{time.time_ns()}.v1", 1, 1)])
        return not any(error[1] for error in answer.topic_errors)
    except (ClusterAuthorizationFailedError, TopicAuthorizationFailedError):
        return False
    finally:
        await admin.close()


async def writes(producer: AIOKafkaProducer) -> bool:
    try:
        await producer.send_and_wait(KafkaTopic.EVENTS.value, b"stolen", key=b"local/cam-0", partition=0)
    except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError):
        return False
    return True


def await_more_recorded(system: RunningSystem, frames: int = 20) -> None:
    """Wait until this many frames more than now are in the database."""
    layout = Layout(system.state)

    def recorded() -> int:
        return count_frames(layout).counts().frames_recorded

    wanted = recorded() + frames
    wait_until(lambda: recorded() >= wanted, f"{frames} frames more in the database", within_s=90, every_s=0.2)


def test_a_revoked_admin_is_refused_by_both_brokers_and_no_frame_is_lost(system: RunningSystem, tmp_path: Path) -> None:
    await_more_recorded(system)
    stolen = copied(system.state, "admin", tmp_path / "stolen")
    mqtt = place(system, "mosquitto")
    kafka = system.roles()["kafka"]["listen"]
    with Visitor(mqtt, stolen) as thief:
        assert asyncio.run(makes_a_topic(KafkaAccess(kafka, stolen)))
        revoke(system.state, "admin")
        assert thief.gone.wait(5)
    with pytest.raises(BrokerError, match="our certificate has been revoked"):
        require_mqtt(mqtt, 5, stolen)
    assert not asyncio.run(makes_a_topic(KafkaAccess(kafka, stolen)))
    own = Tls.of_folder(role_folder(Layout(system.state).pki, "admin"))
    require_mqtt(mqtt, 5, own)
    assert asyncio.run(makes_a_topic(KafkaAccess(kafka, own)))
    await_more_recorded(system)
    system.interrupt()
    report = system.finish()
    assert report["frames_lost"] == report["frames_pending"] == 0


def test_a_revoked_bridge_is_refused_by_both_brokers_and_no_frame_is_lost(
    system: RunningSystem, tmp_path: Path
) -> None:
    await_more_recorded(system)
    stolen = copied(system.state, "bridge", tmp_path / "stolen")
    mqtt = place(system, "mosquitto")
    pid = system.await_role("bridge")

    async def steal() -> None:
        producer = AIOKafkaProducer(**kafka_options(KafkaAccess(system.roles()["kafka"]["listen"], stolen)))
        await start(producer)
        try:
            assert await writes(producer)
            await asyncio.to_thread(revoke, system.state, "bridge")
            # Over the connection that stands.
            assert not await writes(producer)
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()

    asyncio.run(steal())
    with pytest.raises(BrokerError, match="our certificate has been revoked"):
        require_mqtt(mqtt, 5, stolen)
    assert system.await_role("bridge", but_not=pid) != pid
    await_more_recorded(system)
    system.interrupt()
    report = system.finish()
    assert report["frames_lost"] == report["frames_pending"] == 0
