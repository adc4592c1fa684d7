"""Recorders of one group on a Kafka with TLS, passwords and rights, and a PostgreSQL by `sslmode=verify-full`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from consumers.database.queries import open_records
from infra.local.ports import free_port
from infra.local.process import COMMAND
from infra.pki.roles import role_folder
from infra.state_folder import Layout, role_file, write_secret
from infra.up.processes import is_healthy
from schemas.keys.roots import Role, Roots
from schemas.messages.server_messages import open_alert
from schemas.ranges import RangeSet
from schemas.topics import KafkaTopic
from schemas.transport.access import AUTHORITY_FILE, KafkaAddress, kafka_options
from tests.consumers.recorder_rig import BOOT, KEYS, SECRET, dead_letter, ledger, sign_as_processor, signed, verdict
from tests.infra import secure_kafka as passwords
from tests.infra import secure_postgresql as database
from tests.infra.secure_kafka import KafkaWithPasswords
from tests.infra.secure_postgresql import SecurePostgreSQL
from tests.waiting import until

pytestmark = pytest.mark.brokers
GROUP = "pointillist-recorders"
CAMERAS = [f"secure/cam{number}" for number in range(6)]


@dataclass
class Recorders:
    """Recorders started by the command line, with only their own key material."""

    fleet: Layout
    folder: Path
    url: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def start(self, kafka: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a recorder and wait until it is healthy."""
        secret = role_file(self.folder, Role.RECORDER)
        write_secret(secret, Roots.of_fleet(SECRET).of(Role.RECORDER).export())
        metrics = f"127.0.0.1:{free_port()}"
        arguments = ["record", "--group", GROUP, "--kafka", kafka, *options, "--metrics", metrics]
        arguments += ["--database", self.url, "--quarantine", str(self.folder / "quarantine")]
        ours = ("POINTILLIST_", "PG")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {"POINTILLIST_ROLE_SECRET_FILE": str(secret), "PGPASSWORD": database.PASSWORD}
        process = subprocess.Popen([*COMMAND, *arguments], env=environment)
        self.running.append(process)

        def records() -> bool:
            assert process.poll() is None
            return is_healthy(metrics)

        await until(records)
        return process

    def recorded(self) -> dict[str, tuple[RangeSet, RangeSet]]:
        """Return the recorded and the dead-lettered frames of each camera."""
        with open_records(self.url) as records:
            found = records.recorded_by_boot(), records.dead_lettered_by_boot()
        none = RangeSet()
        return {camera: (found[0].get((camera, BOOT), none), found[1].get((camera, BOOT), none)) for camera in CAMERAS}


@pytest.fixture
def recorders(
    secure_postgresql: SecurePostgreSQL, kafka_fleet: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Recorders]:
    monkeypatch.setenv("PGPASSWORD", database.PASSWORD)
    options = f"sslmode=verify-full&sslrootcert={kafka_fleet.pki / AUTHORITY_FILE}"
    group = Recorders(kafka_fleet, tmp_path, f"{secure_postgresql.url_of()}?{options}")
    yield group
    for process in group.running:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def producing(address: KafkaAddress) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(**kafka_options(address), enable_idempotence=True) as producer:
        yield producer


async def publish(kafka: KafkaWithPasswords, first: int, last: int) -> None:
    """Publish results of frames of all cameras, every tenth a dead letter, and their ledgers, as the roles do."""
    async with producing(kafka.access("processor")) as processor, producing(kafka.access("bridge")) as bridge:
        for camera in CAMERAS:
            key = camera.encode()
            for seq in range(first, last + 1):
                if seq % 10 == 5:
                    letter = sign_as_processor(dead_letter(seq, verified=True, camera_id=camera))
                    await processor.send(KafkaTopic.DEAD_LETTERS.value, letter)
                    continue
                statement = verdict(seq, flagged=(seq // 20) % 5 == 3 if seq % 2 else None, whole=seq % 2 == 1)
                await processor.send(KafkaTopic.VERDICTS.value, sign_as_processor(statement, camera), key=key)
            signed_ledger = signed(ledger(last, last + 1), camera)
            kind = [("ce_type", b"pointillist.v1.Ledger")]
            await bridge.send(KafkaTopic.EVENTS.value, signed_ledger, key=key, headers=kind)
        await processor.flush()
        await bridge.flush()


async def cameras_with_alerts(address: KafkaAddress) -> set[str]:
    """Return our cameras with an alert in Kafka."""
    async with AIOKafkaConsumer(
        KafkaTopic.ALERTS.value, **kafka_options(address), auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        found = set()
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                for record in (await consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                    if record.key is not None and record.key.decode() in CAMERAS:
                        found.add(open_alert(record.key.decode(), record.value, KEYS).camera_id)
        return found


async def test_recorders_with_a_certificate_and_with_a_password_share_the_work_of_a_group(
    secure_kafka: KafkaWithPasswords, kafka_fleet: Layout, recorders: Recorders, tmp_path: Path
) -> None:
    async def wait_until_recorded(last: int) -> None:
        letters = RangeSet.of(seq for seq in range(last + 1) if seq % 10 == 5)
        expected = (RangeSet([(0, last)]).minus(letters), letters)

        async def all_recorded() -> bool:
            return await asyncio.to_thread(recorders.recorded) == dict.fromkeys(CAMERAS, expected)

        await until(all_recorded)

    own = role_folder(kafka_fleet.pki, "recorder")
    first = await recorders.start(secure_kafka.listen, "--kafka-tls", str(own))
    await publish(secure_kafka, 0, 39)
    await wait_until_recorded(39)

    login, authority = tmp_path / "recorder.login", tmp_path / "authority"
    write_secret(login, f"recorder:{passwords.PASSWORD}")
    authority.mkdir()
    (authority / AUTHORITY_FILE).write_text((own / AUTHORITY_FILE).read_text())
    second = await recorders.start(secure_kafka.login, "--kafka-tls", str(authority), "--kafka-login-file", str(login))
    await publish(secure_kafka, 40, 79)
    await wait_until_recorded(79)

    # Only the recorder with the password is left: it has its rights to both groups by its user name.
    first.terminate()
    assert first.wait(60) == 0
    await publish(secure_kafka, 80, 119)
    await wait_until_recorded(119)

    async def all_alerted() -> bool:
        return await cameras_with_alerts(secure_kafka.access("audit")) == set(CAMERAS)

    await until(all_alerted)
    command_line = Path(f"/proc/{second.pid}/cmdline").read_bytes()
    for secret in (passwords.PASSWORD, database.PASSWORD):
        assert secret.encode() not in command_line
    second.terminate()
    assert second.wait(60) == 0
