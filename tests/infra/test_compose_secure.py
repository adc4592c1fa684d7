"""compose.yaml: every connection by TLS, each role with its own key material alone."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from infra.local.kafka import CLUSTER_ID, Kafka, kafka_security
from infra.local.kafka_jars import java_binary, kafka_jars
from infra.local.topics import create_topics, pointillist_topics
from infra.pki.kafka_rights import grant
from infra.pki.roles import CLIENTS, ROLE_DAYS, SERVERS, role_folder, role_tls
from infra.preflight.brokers import require_kafka
from infra.state_folder import Layout
from infra.state_folder.environment import Environment
from schemas.errors import BrokerError
from schemas.transport.access import KafkaAccess, Tls
from tests.infra.command_line import parsed
from tests.infra.secure import enrolled, make_fleet
from tests.infra.test_compose import COMPOSE, OURS, ROOT, SERVICES, mounts

AUTHORITY: Final = "/var/lib/pointillist-authority"
OWN: Final = "/var/lib/pointillist-pki"
WHOSE: Final = {"database": "postgresql", "topics": "admin"}
"""What a service is called in the fleet, where that is another name."""


def test_each_service_mounts_its_own_key_material_and_only_the_authority_writes_it() -> None:
    issued = {source: target for source, target, _ in mounts("identities") if source.endswith("-pki")}
    assert issued == {source: f"{AUTHORITY}/pki/roles/{source.removesuffix('-pki')}" for source in issued}
    assert {source.removesuffix("-pki") for source in issued} <= {*SERVERS, *CLIENTS}
    assert list(mounts("renewal")) == list(mounts("identities"))
    for name in set(SERVICES) - {"identities", "renewal"}:
        seen = {source for source, _, _ in mounts(name) if source.endswith("-pki")}
        own = {f"{WHOSE.get(name, name)}-pki"} & issued.keys()
        # A broker's own certificate is no client's: what asks for its health has one that may connect and do no more.
        assert seen == own | ({"health-pki"} if name == "mosquitto" else set()), name
        assert all(ro for source, _, ro in mounts(name) if source in (*issued, "fleet-keys", "fleet-enrolments"))
        assert "authority-data" not in {source for source, _, _ in mounts(name)}
    assert {name for name in SERVICES if "fleet-keys" in {source for source, _, _ in mounts(name)}} == {
        "identities", "renewal", "fleet",
    }  # fmt: skip


def test_the_certificates_of_roles_are_renewed_where_they_were_made() -> None:
    options = parsed(OURS["renewal"]["command"])
    assert options["state"] == Path(AUTHORITY)
    # Before half of a life is over and the other half begins, there are many tries.
    assert 0 < options["every"] <= 24 * ROLE_DAYS / 2 / 4
    assert parsed(OURS["identities"]["command"])["days"] == options["days"] == ROLE_DAYS


def test_what_is_laid_down_where_a_volume_begins_belongs_to_the_image_s_user() -> None:
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    (roles,) = re.findall(r"for role in ([a-z ]+);", dockerfile)
    made = {*re.findall(r"/var/lib/[a-z/-]+", dockerfile), *(f"{AUTHORITY}/pki/roles/{role}" for role in roles.split())}
    for name in OURS:
        for source, target, _ in mounts(name):
            assert source.startswith(".") or target in made, f"{name}: {target}"
    (group,) = re.findall(r"--gid (\d+) pointillist &&", dockerfile)
    for name in ("mosquitto", "kafka"):
        assert list(map(str, SERVICES[name]["group_add"])) == [group]


def test_the_authority_issues_for_the_hosts_that_are_connected_to() -> None:
    options = parsed(OURS["identities"]["command"])
    assert options["keep"]
    assert options["group_reads"]
    assert options["state"] == Path(AUTHORITY)
    assert options["host"] == ["mosquitto", "kafka", "database"]
    (planned,) = (target for source, target, _ in mounts("fleet") if source.endswith("scenario.yaml"))
    assert options["scenario"] == parsed(OURS["fleet"]["command"])["scenario"] == Path(planned)


@pytest.mark.parametrize("name", ["bridge", "processor", "recorder", "topics"])
def test_roles_reach_kafka_by_their_own_certificate(name: str) -> None:
    variables = OURS[name]["environment"]
    assert variables["POINTILLIST_KAFKA_TLS"] == OWN
    assert {each.lower().removeprefix("pointillist_") for each in variables if each.startswith("POINTILLIST_")} <= {
        *Environment.model_fields
    }
    if name == "bridge":
        assert variables["POINTILLIST_MQTT_TLS"] == OWN
        assert Path(variables["POINTILLIST_SHARE_FILE"]).parent == Path(OWN)
    if name != "topics":
        assert variables["POINTILLIST_GENERATIONS_FILE"] == f"{OWN}/generations.json"


def test_the_database_takes_nobody_without_tls_and_its_host_is_verified() -> None:
    variables = OURS["recorder"]["environment"]
    assert (variables["PGSSLMODE"], variables["PGSSLROOTCERT"]) == ("verify-full", f"{OWN}/ca.crt")
    words = (line.split() for line in (COMPOSE / "pg_hba.conf").read_text().splitlines() if not line.startswith("#"))
    assert {(line[0], line[-1]) for line in words} == {("local", "trust"), ("hostssl", "scram-sha-256")}


def test_topics_sets_the_rights_of_the_roles() -> None:
    assert parsed(OURS["topics"]["command"])["rights"] is True


def test_kafka_is_as_strict_as_that_of_up(tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    folder.mkdir()
    local = dict(line.split("=", 1) for line in kafka_security(make_fleet(tmp_path / "fleet").pki, folder).splitlines())
    variables = SERVICES["kafka"]["environment"]
    for name, value in local.items():
        mine = variables.get(f"KAFKA_{name.upper().replace('.', '_')}", "").replace("$$", "$")
        if name.endswith("location"):
            assert mine.startswith("/etc/kafka/pki/")
        else:
            assert mine == value, name
    assert set(variables["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")) == {"BROKER:SSL", "CONTROLLER:SSL"}


def test_kafka_s_health_is_asked_for_with_its_own_certificate() -> None:
    (option,) = (word for word in SERVICES["kafka"]["healthcheck"]["test"] if word.startswith("--command-config="))
    (source,) = (source for source, target, _ in mounts("kafka") if target == option.partition("=")[2])
    lines = (line for line in (ROOT / source).read_text().splitlines() if not line.startswith("#"))
    variables = SERVICES["kafka"]["environment"]
    store = ("keystore.type", "keystore.location", "truststore.type", "truststore.location")
    assert dict(line.split("=", 1) for line in lines) == {"security.protocol": "SSL"} | {
        f"ssl.{name}": variables[f"KAFKA_SSL_{name.upper().replace('.', '_')}"] for name in store
    }


@pytest.fixture
def fleet(tmp_path: Path) -> Layout:
    return make_fleet(tmp_path / "fleet")


class _AsInTheImage(Kafka):
    """Kafka with the variables of compose.yaml, which the image's own program makes its settings of."""

    def _command(self) -> list[str]:
        assert self._pki is not None
        for name in ("default", "mounted", "final"):
            (self.folder / name).mkdir(exist_ok=True)
        # What the containers' names and paths are on this machine.
        here = {
            "kafka:9092": self.listen,
            "BROKER://:9092": f"BROKER://{self.listen}",
            "@kafka:9093": f"@{self.host}:{self._ports['kafka-controller']}",
            "CONTROLLER://:9093": f"CONTROLLER://{self.host}:{self._ports['kafka-controller']}",
            "/etc/kafka/pki": str(role_folder(self._pki, "kafka")),
            "/var/lib/kafka/data": str(self.folder / "data"),
            "$$": "$",
        }
        variables = {"CLUSTER_ID": CLUSTER_ID, "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4"}
        for name, value in SERVICES["kafka"]["environment"].items():
            variables[name] = str(value)
            for before, after in here.items():
                variables[name] = variables[name].replace(before, after)
        java = [java_binary(), "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", os.pathsep.join(map(str, kafka_jars()))]
        folders = (f"--{name}-configs-dir={self.folder / name}" for name in ("default", "mounted", "final"))
        setup = [*java, "kafka.docker.KafkaDockerWrapper", "setup", *folders]
        environment = {"PATH": os.environ["PATH"], **variables}
        done = subprocess.run(setup, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [*java, "kafka.Kafka", str(self.folder / "final" / "server.properties")]


@pytest.fixture
def kafka(fleet: Layout) -> Iterator[Kafka]:
    kafka = _AsInTheImage(fleet.folder, pki=fleet.pki)
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.stop()


@pytest.mark.brokers
def test_kafka_so_configured_lets_roles_in_by_their_certificates_and_nobody_else(kafka: Kafka, fleet: Layout) -> None:
    asyncio.run(create_topics(kafka.access("admin"), pointillist_topics(1)))
    asyncio.run(grant(kafka.access("admin")))
    require_kafka(kafka.access("recorder"), 5)
    with pytest.raises(BrokerError, match="the server asks for a certificate"):
        require_kafka(KafkaAccess(kafka.listen, Tls(role_tls(fleet.pki, "bridge").authorities)), 5)
    with pytest.raises(BrokerError):
        asyncio.run(grant(kafka.access("recorder"), 0.1))
    with pytest.raises(BrokerError):
        asyncio.run(grant(KafkaAccess(kafka.listen, enrolled(fleet, "site/door")), 0.1))
