from __future__ import annotations

import re
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from infra.local.kafka import Kafka
from infra.local.mosquitto import TEMPLATE as MOSQUITTO_TEMPLATE
from infra.local.mosquitto import Mosquitto, listeners
from infra.local.ports import Ports
from infra.local.prometheus import RULES, Prometheus
from infra.local.prometheus import TEMPLATE as PROMETHEUS_TEMPLATE
from infra.state_folder import Layout
from infra.up.processes import LocalRoles
from infra.up.settings import UpSettings
from producers.simulation.scenario import load_scenario
from schemas.keys.signers import TrustedSigners
from schemas.limits import MAX_BROKER_BYTES
from tests.infra.command_line import parsed

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "infra" / "compose"
TEXT = (ROOT / "compose.yaml").read_text()
SPEC = compose_spec.PyOptions(apply_merge=True).from_yaml(TEXT)
SERVICES: dict[str, dict[str, Any]] = SPEC.to_dict()["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("pointillist")}
SECRET = re.compile("SECRET|PASSWORD|TOKEN|_KEY(?!STORE_(TYPE|LOCATION))")
each_of_ours = pytest.mark.parametrize("name", OURS)


def mounts(name: str) -> Iterator[tuple[str, str, bool]]:
    """Source, target, and whether it is read-only."""
    for volume in SERVICES[name].get("volumes", []):
        source, target, *mode = volume.split(":")
        yield source, target, mode == ["ro"]


def settings(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.startswith("#")}


def local_roles(folder: Path) -> set[str]:
    """The roles that `pointillist up` runs and Prometheus scrapes."""
    roles = LocalRoles(UpSettings(), Layout(folder), Ports(folder), "127.0.0.1:1", "127.0.0.1:2")
    alone = (roles.recorder(), roles.console(), roles.monitor(), roles.fleet())
    return {role.name for role in [*roles.bridges(), *roles.processors(), *alone]}


def scrape_config(text: str) -> dict[str, Any]:
    (config,) = yaml.safe_load(text)["scrape_configs"]
    assert isinstance(config, dict)
    return config


def test_it_is_valid_and_refers_to_nothing_that_it_does_not_define() -> None:
    SPEC.validate()
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_it_runs_every_role_that_up_runs(state_dir: Path) -> None:
    ours = {role.removesuffix("-1") for role in local_roles(state_dir)}
    assert ours | {Mosquitto.role, Kafka.role, Prometheus.role} <= SERVICES.keys()


@each_of_ours
def test_our_own_command_line_accepts_its_command(name: str) -> None:
    assert parsed(OURS[name]["command"])


@each_of_ours
def test_every_address_in_its_command_is_a_service_that_is_waited_for(name: str) -> None:
    needed = re.findall(r"\b([a-z]+):(?:8883|9092)\b|@([a-z]+)/", " ".join(OURS[name]["command"]))
    assert needed or name not in {"bridge", "processor", "recorder", "fleet", "topics"}
    for host in {a or b for a, b in needed}:
        assert host in SERVICES
        assert host in waited_for(name)


def waited_for(name: str) -> set[str]:
    before = set(SERVICES[name].get("depends_on", {}))
    return before.union(*(waited_for(service) for service in before))


@each_of_ours
def test_every_path_in_its_command_and_its_variables_is_mounted(name: str) -> None:
    targets = {target for _, target, _ in mounts(name)}
    words = [*OURS[name]["command"], *map(str, OURS[name].get("environment", {}).values())]
    for path in re.findall(r"(?:^|[ =])(/[^ ]*)", " ".join(words)):
        assert any(f"{path}/".startswith(f"{target}/") or target.startswith(f"{path}/") for target in targets), path


def test_every_service_that_is_waited_for_until_it_is_healthy_says_when_it_is() -> None:
    for service in SERVICES.values():
        before = service.get("depends_on", {})
        healthy = [other for other in before if before[other]["condition"] == "service_healthy"]
        assert all(SERVICES[other]["healthcheck"]["test"] for other in healthy)


@pytest.mark.parametrize("name", SERVICES)
def test_what_it_mounts_from_the_repository_exists_and_is_read_only(name: str) -> None:
    for source, _, read_only in mounts(name):
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert read_only


def test_no_secret_has_a_value_or_a_default() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE"):
                assert any(str(value).startswith(f"{target}/") and ro for _, target, ro in mounts(name)), variable
            elif SECRET.search(variable):
                assert re.fullmatch(r"\$\{(\w+):\?set \1\}", str(value)), variable
    assert all("?" in use for use in re.findall(r"\$\{[^}]*\}", TEXT))
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", TEXT), "a password in a URL"


def test_the_fleet_secret_is_in_no_container_that_runs_a_role_and_each_role_sees_its_own() -> None:
    holders = {name for name, service in SERVICES.items() if "FLEET_SECRET" in str(service.get("environment"))}
    assert holders == {"keys", "identities"}
    for role in ("bridge", "processor", "recorder", "console"):
        assert [source for source, _, _ in mounts(role) if source.endswith("-secret")] == [f"{role}-secret"]


def test_no_port_is_open_beyond_this_machine() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@each_of_ours
def test_our_containers_run_without_privileges_on_a_read_only_file_system(name: str) -> None:
    assert OURS[name]["read_only"] is True
    assert OURS[name]["cap_drop"] == ["ALL"]


def test_prometheus_names_the_roles_as_up_does(state_dir: Path) -> None:
    config = scrape_config((COMPOSE / "prometheus.yml").read_text())
    local = scrape_config(PROMETHEUS_TEMPLATE.read_text().replace("$RULES", "r").replace("$TARGETS", "t"))
    targets = {entry["labels"]["role"]: entry["targets"] for entry in config["static_configs"]}
    assert config["job_name"] == local["job_name"]
    assert config["honor_labels"] is local["honor_labels"] is True
    assert targets.keys() == local_roles(state_dir)
    for (target,) in targets.values():
        host, _, port = target.partition(":")
        assert f"0.0.0.0:{port}" in " ".join(SERVICES[host]["command"])


def test_prometheus_itself_accepts_its_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install the Debian package prometheus"
    mounted = {target: source for source, target, _ in mounts("prometheus")}
    assert (ROOT / mounted["/etc/prometheus/rules"]).resolve() == RULES.resolve()
    config = tmp_path / "prometheus.yml"
    config.write_text((COMPOSE / "prometheus.yml").read_text().replace("/etc/prometheus/rules", str(RULES)))
    done = subprocess.run(
        [promtool, "check", "config", config], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mosquitto_has_the_limits_and_the_rights_that_up_gives_it() -> None:
    filled = string.Template(MOSQUITTO_TEMPLATE.read_text()).safe_substitute(
        MAX_PACKET_BYTES=MAX_BROKER_BYTES,
        LISTENERS=listeners([("127.0.0.1", 8883)], Path("/pki")).replace("/pki/roles/mosquitto", "/mosquitto/pki"),
    )  # fmt: skip
    local = settings(filled)
    mine = settings((COMPOSE / "mosquitto.conf").read_text())
    here = ("listener", "user", "persistence_location", "log_timestamp_format")
    assert {line for line in mine if not line.startswith(here)} == {x for x in local if not x.startswith(here)}


def test_kafka_takes_the_largest_message_and_makes_no_topic_by_itself() -> None:
    environment = SERVICES["kafka"]["environment"]
    assert int(environment["KAFKA_MESSAGE_MAX_BYTES"]) == MAX_BROKER_BYTES
    assert int(environment["KAFKA_REPLICA_FETCH_MAX_BYTES"]) == MAX_BROKER_BYTES
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_scenario_is_one_that_the_fleet_runs() -> None:
    assert load_scenario(COMPOSE / "scenario.yaml").cameras()


def test_the_bundle_of_the_processor_is_shipped() -> None:
    (bundle,) = (word for word in SERVICES["processor"]["command"] if word.startswith("--bundle="))
    assert (ROOT / "bundles" / bundle.removeprefix("--bundle=")).is_dir()


def test_the_file_of_the_trusted_signers_can_be_read_and_trusts_nobody_yet() -> None:
    file = COMPOSE / "trusted-signers"
    TrustedSigners.read(file)
    assert all(line.startswith("#") for line in file.read_text().splitlines())
