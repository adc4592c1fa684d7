"""`compose.yaml`: valid, hardened, and with the rights and key material that `up` gives."""

from __future__ import annotations

import re
import shlex
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import compose_spec
import pytest

from infra.local.kafka import Kafka, kafka_security
from infra.local.mosquitto import TEMPLATE as MOSQUITTO_TEMPLATE
from infra.local.mosquitto import Mosquitto, listeners
from infra.local.ports import Ports
from infra.local.prometheus import RULES, Prometheus
from infra.pki.roles import CLIENTS, SERVERS, role_folder
from infra.state_folder import Layout
from infra.state_folder.environment import Environment
from infra.up.processes import LocalRoles
from infra.up.settings import UpSettings
from schemas.limits import MAX_BROKER_BYTES
from tests.infra.command_line import parse_arguments
from tests.infra.secure import make_fleet, running_mosquitto

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
    alone = (roles.recorder(), roles.console(), roles.monitor(), *roles.fleets(1))
    return {role.name for role in [*roles.bridges(), *roles.processors(), *alone]}


def test_the_console_may_write_its_own_files() -> None:
    (place,) = (each.partition("=")[2] for each in SERVICES["console"]["command"] if each.startswith("--kept-files="))
    assert any(place.startswith(f"{target}/") and not read_only for _, target, read_only in mounts("console"))


def test_the_documented_command_adds_the_user_without_whom_the_console_does_not_start() -> None:
    page = (ROOT / "docs/operations/kubernetes.md").read_text()
    (command,) = re.findall(r"docker compose run .* console (user add .*)", page)
    (users,) = (each.partition("=")[2] for each in SERVICES["console"]["command"] if each.startswith("--users="))
    assert str(parse_arguments(shlex.split(command))["file"]) == users
    assert any(users.startswith(f"{target}/") and not read_only for _, target, read_only in mounts("console"))


def test_the_documented_command_publishes_a_model_to_the_processors_and_replaces_no_list_of_theirs() -> None:
    page = (ROOT / "docs/operations/kubernetes.md").read_text()
    (line,) = re.findall(r"docker compose run (.* model publish .*)", page)
    words = shlex.split(line)
    service = words.index("processor")
    given = [word.split(":") for word in words[:service] if ":" in word]
    options = parse_arguments(words[service + 1 :])
    assert {str(options["bundle"]), str(options["signer"])} == {target for _, target, _ in given}
    assert str(options["trust"]) in {target for _, target, _ in mounts("processor")}
    assert any(str(options["store"]).startswith(f"{target}/") and not ro for _, target, ro in mounts("processor"))
    broker = options["kafka"].partition(":")[0]
    assert broker in SERVICES
    assert "docker compose exec processor" not in page  # nothing of the host is in that container


def test_neither_git_nor_the_image_takes_the_file_of_secrets() -> None:
    for name in (".gitignore", ".dockerignore"):
        assert ".env" in (ROOT / name).read_text().splitlines()


def test_neither_git_nor_the_image_takes_a_key_that_the_documented_commands_write() -> None:
    pages = [(ROOT / "docs/operations" / name).read_text() for name in ("kubernetes.md", "keys.md")]
    endings = {end for page in pages for end in re.findall(r"(?:--out|-m 400) [^#\n]*\.(\w+)", page)}
    assert endings == {"key", "secret", "enrolment"}
    for name, prefix in ((".gitignore", ""), (".dockerignore", "**/")):
        assert {f"{prefix}*.{end}" for end in endings} <= set((ROOT / name).read_text().splitlines())
    folders = set(re.findall(r"--state (\w+) --host|--role admin --file (\w+)", pages[0]))
    assert {name for pair in folders for name in pair if name} == {"fleet", "users"}
    assert {"fleet", "users"} <= set((ROOT / ".dockerignore").read_text().splitlines())
    assert {"/fleet/", "/users"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_it_is_valid_and_refers_to_nothing_that_it_does_not_define() -> None:
    SPEC.validate()
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_it_runs_every_role_that_up_runs(state_dir: Path) -> None:
    ours = {role.removesuffix("-1") for role in local_roles(state_dir)}
    assert ours | {Mosquitto.role, Kafka.role, Prometheus.role} <= SERVICES.keys()


@each_of_ours
def test_our_own_command_line_accepts_its_command(name: str) -> None:
    assert parse_arguments(OURS[name]["command"])


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


@pytest.mark.brokers
def test_the_health_check_of_mosquitto_passes_while_it_runs(tmp_path: Path) -> None:
    kind, *command = SERVICES["mosquitto"]["healthcheck"]["test"]
    assert kind == "CMD"
    assert not [word for word in command if word.startswith("--") and "=" in word], "mosquitto_sub would refuse it"
    if shutil.which(command[0]) is None:
        pytest.skip("mosquitto_sub is not installed")
    fleet = make_fleet(tmp_path)

    def status(port: int) -> int:
        here = [word.replace("8883", str(port)) for word in command]
        here = [word.replace("/mosquitto/health", str(role_folder(fleet.pki, "health"))) for word in here]
        return subprocess.run(here, check=False, capture_output=True, timeout=60).returncode

    with running_mosquitto(fleet) as (_, port):
        assert status(port) == 0
    assert status(port) != 0


AUTHORITY: Final = "/var/lib/pointillist-authority"
OWN: Final = "/var/lib/pointillist-pki"
FLEET_NAMES: Final = {"database": "postgresql", "topics": "admin"}
"""The name of a service in the fleet, where that is another one."""


def test_each_service_mounts_its_own_key_material_and_only_the_authority_writes_it() -> None:
    issued = {source: target for source, target, _ in mounts("identities") if source.endswith("-pki")}
    assert issued == {source: f"{AUTHORITY}/pki/roles/{source.removesuffix('-pki')}" for source in issued}
    assert {source.removesuffix("-pki") for source in issued} <= {*SERVERS, *CLIENTS}
    assert list(mounts("renewal")) == list(mounts("identities"))
    for name in set(SERVICES) - {"identities", "renewal"}:
        seen = {source for source, _, _ in mounts(name) if source.endswith("-pki")}
        own = {f"{FLEET_NAMES.get(name, name)}-pki"} & issued.keys()
        # A broker's own certificate is no client's: what asks for its health has one that may connect and do no more.
        assert seen == own | ({"health-pki"} if name == "mosquitto" else set()), name
        assert all(ro for source, _, ro in mounts(name) if source in (*issued, "fleet-keys", "fleet-enrolments"))
        assert "authority-data" not in {source for source, _, _ in mounts(name)}
    assert {name for name in SERVICES if "fleet-keys" in {source for source, _, _ in mounts(name)}} == {
        "identities", "renewal", "fleet",
    }  # fmt: skip


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
