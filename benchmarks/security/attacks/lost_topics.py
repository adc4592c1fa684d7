"""Kafka loses the frames topic of a running system, and gets an empty one back."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks.outcome import Outcome
from infra.local.topics import create_topics, pointillist_topics
from infra.pki.roles import role_tls
from infra.state_folder import Layout
from infra.up.processes import health_of
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAccess, KafkaAddress, kafka_options

TOPIC = KafkaTopic.FRAMES.value
PARTITIONS = 6
AWAY_S = 30.0
NOTICED_S = 15.0
BACK_S = 90.0


def attack(folder: Path) -> Outcome:
    """Delete the topic and create it again. The aim is a processor that reports healthy but reads nothing."""
    state = folder / "lost"
    with RunningSystem(state, "--cameras", 4, "--fps", 2, "--drain-s", 120, "--no-prometheus") as system:
        system.await_role("fleet")
        layout = Layout(state)
        wait_for(lambda: recorded(layout) > 20, 60)
        roles = system.roles()
        kafka = KafkaAccess(roles["kafka"]["listen"], role_tls(layout.pki, "admin"))
        health = roles["processor-1"]["metrics"]
        asyncio.run(delete(kafka))
        lost_at = time.monotonic()
        noticed_s = wait_for(lambda: not health_of(health)[0], NOTICED_S)
        healthy_while_deaf = 0
        while time.monotonic() < lost_at + AWAY_S:
            healthy_while_deaf += health_of(health)[0] and time.monotonic() > lost_at + NOTICED_S
            time.sleep(0.5)
        said = {name: found["detail"] for name, found in health_of(health)[1].items() if not found["ok"]}
        asyncio.run(create_topics(kafka, {TOPIC: pointillist_topics(PARTITIONS)[TOPIC]}))
        before = recorded(layout)
        back_s = wait_for(lambda: recorded(layout) > before + 20 and health_of(health)[0], BACK_S)
        system.process.send_signal(signal.SIGINT)
        status, report = system.wait(300)
    return Outcome(
        what="The frames topic is deleted under a running system, and an empty one made after half a minute",
        succeeded=noticed_s is None or healthy_while_deaf > 0 or back_s is None,
        lost=report.get("frames_lost", audit(state)[1]["frames_lost"]),
        seen={
            "unhealthy_after_s": noticed_s,
            "it_says": said,
            "healthy_looks_while_there_is_no_topic": healthy_while_deaf,
            "frames_recorded_again_after_s": back_s,
            "exit_status": status,
            "frames_pending": report.get("frames_pending"),
            "restarts": report.get("restarts"),
        },
    )


def wait_for(condition: Callable[[], bool], deadline_s: float) -> float | None:
    """Return the seconds after which the condition held, or None if it did not hold within the deadline."""
    begun = time.monotonic()
    while time.monotonic() < begun + deadline_s:
        if condition():
            return round(time.monotonic() - begun, 1)
        time.sleep(0.2)
    return None


def recorded(layout: Layout) -> int:
    """Return the number of frames in the database; 0 before the database exists."""
    try:
        with sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True) as connection:
            (count,) = connection.execute("select count(*) from frames").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return 0


async def delete(kafka: KafkaAddress) -> None:
    """Delete the frames topic with its records."""
    admin = AIOKafkaAdminClient(**kafka_options(kafka))
    await admin.start()
    try:
        await admin.delete_topics([TOPIC])
    finally:
        await admin.close()
