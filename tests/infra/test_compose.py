"""`compose.yaml`: valid, hardened, and with the same rights and key material as in `up`."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import compose_spec
import pytest

from benchmarks.harness.serving import serving
from infra.local.kafka import Kafka, kafka_security
from infra.local.mosquitto import TEMPLATE as MOSQUITTO_TEMPLATE
from infra.local.mosquitto import Mosquitto, listeners
from infra.local.ports import Ports
from infra.local.prometheus import RULES, Prometheus
from infra.pki.authority import LOCAL_HOSTS, certificate_hosts
from infra.pki.roles import CLIENTS, SERVERS, role_folder
from infra.state_folder import Layout
from infra.state_folder.environment import Environment
from infra.up.processes import LocalRoles
from infra.up.settings import UpSettings
from schemas.limits import MAX_BROKER_BYTES
from tests.infra.command_line import parse_arguments, run
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
    """Yield the source and the target of each volume, and whether the volume is read-only."""
    for volume in SERVICES[name].get("volumes", []):
        source, target, *mode = volume.split(":")
        yield source, target, mode == ["ro"]


def settings(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.startswith("#")}


def local_roles(folder: Path) -> set[str]:
    """Return the roles that `pointillist up` runs and Prometheus scrapes."""
    roles = LocalRoles(UpSettings(), Layout(folder), Ports(folder), "127.0.0.1:1", "127.0.0.1:2")
    alone = (roles.recorder(), roles.console(), roles.monitor(), *roles.fleets(1))
    return {role.name for role in [*roles.bridges(), *roles.processors(), *alone]}


def test_the_console_can_write_its_files() -> None:
    (folder,) = (each.partition("=")[2] for each in SERVICES["console"]["command"] if each.startswith("--kept-files="))
    assert any(folder.startswith(f"{target}/") and not read_only for _, target, read_only in mounts("console"))


def test_the_documented_command_adds_a_user_to_the_console_s_file() -> None:
    page = (ROOT / "docs/operations/kubernetes.md").read_text()
    (command,) = re.findall(r"docker compose run .* console (user add .*)", page)
    (users,) = (each.partition("=")[2] for each in SERVICES["console"]["command"] if each.startswith("--users="))
    assert str(parse_arguments(shlex.split(command))["file"]) == users
    assert any(users.startswith(f"{target}/") and not read_only for _, target, read_only in mounts("console"))


def test_the_documented_command_publishes_a_model_with_the_processors_trusted_signers() -> None:
    page = (ROOT / "docs/operations/kubernetes.md").read_text()
    (line,) = re.findall(r"docker compose run (.* model publish .*)", page)
    words = shlex.split(line)
    service = words.index("processor")
    volumes = [word.split(":") for word in words[:service] if ":" in word]
    options = parse_arguments(words[service + 1 :])
    assert {str(options["bundle"]), str(options["signer"])} == {target for _, target, _ in volumes}
    assert str(options["trust"]) in {target for _, target, _ in mounts("processor")}
    assert any(str(options["store"]).startswith(f"{target}/") and not ro for _, target, ro in mounts("processor"))
    broker = options["kafka"].partition(":")[0]
    assert broker in SERVICES
    assert "docker compose exec processor" not in page  # that container has no files of the host


def test_git_and_the_image_ignore_the_file_of_secrets() -> None:
    for name in (".gitignore", ".dockerignore"):
        assert ".env" in (ROOT / name).read_text().splitlines()


def test_git_and_the_image_ignore_the_keys_that_documented_commands_write() -> None:
    pages = [(ROOT / "docs/operations" / name).read_text() for name in ("kubernetes.md", "keys.md")]
    endings = {end for page in pages for end in re.findall(r"(?:--out|-m 400) [^#\n]*\.(\w+)", page)}
    assert endings == {"key", "secret", "enrolment"}
    for name, prefix in ((".gitignore", ""), (".dockerignore", "**/")):
        assert {f"{prefix}*.{end}" for end in endings} <= set((ROOT / name).read_text().splitlines())
    folders = set(re.findall(r"--state (\w+) --host|--role admin --file (\w+)", pages[0]))
    assert {name for pair in folders for name in pair if name} == {"fleet", "users"}
    assert {"fleet", "users"} <= set((ROOT / ".dockerignore").read_text().splitlines())
    assert {"/fleet/", "/users"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_the_file_is_valid_and_every_dependency_is_defined() -> None:
    SPEC.validate()
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_the_certificate_of_each_server_names_its_own_service_only(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    hosts = [word for word in SERVICES["identities"]["command"] if word.startswith("--host=")]
    assert run("ca", "init", "--state", layout.folder, *hosts).exit_code == 0
    for service in ("mosquitto", "kafka", "database"):
        server = FLEET_NAMES.get(service, service)
        names = certificate_hosts(role_folder(layout.pki, server) / "tls.crt")
        assert set(names) - set(LOCAL_HOSTS) == {service}


def test_every_role_of_up_is_a_service(state_dir: Path) -> None:
    ours = {role.removesuffix("-1") for role in local_roles(state_dir)}
    assert ours | {Mosquitto.role, Kafka.role, Prometheus.role} <= SERVICES.keys()


@each_of_ours
def test_the_command_line_accepts_the_command_of_each_service(name: str) -> None:
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


def test_the_fleet_secret_is_in_no_role_s_container_and_each_role_has_its_own_secret() -> None:
    holders = {name for name, service in SERVICES.items() if "FLEET_SECRET" in str(service.get("environment"))}
    assert holders == {"keys", "identities"}
    for role in ("bridge", "processor", "recorder", "console"):
        assert [source for source, _, _ in mounts(role) if source.endswith("-secret")] == [f"{role}-secret"]


def test_published_ports_are_bound_to_loopback() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@each_of_ours
def test_our_containers_run_without_privileges_on_a_read_only_file_system(name: str) -> None:
    assert OURS[name]["read_only"] is True
    assert OURS[name]["cap_drop"] == ["ALL"]


def test_promtool_accepts_the_configuration_of_prometheus(tmp_path: Path) -> None:
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


def test_mosquitto_has_the_same_limits_and_rights_as_in_up() -> None:
    filled = string.Template(MOSQUITTO_TEMPLATE.read_text()).safe_substitute(
        MAX_PACKET_BYTES=MAX_BROKER_BYTES,
        LISTENERS=listeners([("127.0.0.1", 8883)], Path("/pki")).replace("/pki/roles/mosquitto", "/mosquitto/pki"),
    )  # fmt: skip
    local = settings(filled)
    deployed = settings((COMPOSE / "mosquitto.conf").read_text())
    deployment_keys = ("listener", "user", "persistence_location", "log_timestamp_format")
    assert {line for line in deployed if not line.startswith(deployment_keys)} == {
        x for x in local if not x.startswith(deployment_keys)
    }


def test_mosquitto_may_open_as_many_files_as_its_container_allows(tmp_path: Path) -> None:
    program, config = tmp_path / "mosquitto", tmp_path / "mosquitto.conf"
    program.write_text("#!/bin/sh\nulimit -S -n\n")
    program.chmod(0o755)
    config.touch()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    command = f"ulimit -S -n {min(64, hard)}; exec sh {shlex.quote(str(COMPOSE / 'follow.sh'))} {config} {config}"
    found = subprocess.run(
        ["sh", "-c", command], check=True, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert found.stdout.split() == [str(hard)]


@pytest.mark.brokers
def test_the_health_check_of_mosquitto_passes_while_it_runs(tmp_path: Path) -> None:
    kind, *command = SERVICES["mosquitto"]["healthcheck"]["test"]
    assert kind == "CMD"
    assert not [word for word in command if word.startswith("--") and "=" in word], "mosquitto_sub would reject it"
    if shutil.which(command[0]) is None:
        pytest.skip("mosquitto_sub is not installed")
    fleet = make_fleet(tmp_path)

    def status(port: int) -> int:
        local_command = [word.replace("8883", str(port)) for word in command]
        local_command = [
            word.replace("/mosquitto/health", str(role_folder(fleet.pki, "health"))) for word in local_command
        ]
        return subprocess.run(local_command, check=False, capture_output=True, timeout=60).returncode

    with running_mosquitto(fleet) as (_, port):
        assert status(port) == 0
    assert status(port) != 0


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_health_check_of_a_role_ignores_a_proxy_of_the_environment(status: int, expected: int) -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    _, *command = SERVICES["bridge"]["healthcheck"]["test"]
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Health)) as server:
        local = [sys.executable, *(word.replace("9100", str(server.server_port)) for word in command[1:])]
        proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        done = subprocess.run(local, check=False, capture_output=True, text=True, timeout=60, env=os.environ | proxy)
    assert done.returncode == expected, done.stderr


AUTHORITY_FOLDER: Final = "/var/lib/pointillist-authority"
OWN_FOLDER: Final = "/var/lib/pointillist-pki"
FLEET_NAMES: Final = {"database": "postgresql", "topics": "admin"}
"""Names in the fleet of services with another name in Compose."""


def test_each_service_mounts_only_its_key_material_and_only_the_authority_writes_it() -> None:
    issued = {source: target for source, target, _ in mounts("identities") if source.endswith("-pki")}
    assert issued == {source: f"{AUTHORITY_FOLDER}/pki/roles/{source.removesuffix('-pki')}" for source in issued}
    assert {source.removesuffix("-pki") for source in issued} <= {*SERVERS, *CLIENTS}
    assert list(mounts("renewal")) == list(mounts("identities"))
    for name in set(SERVICES) - {"identities", "renewal"}:
        seen = {source for source, _, _ in mounts(name) if source.endswith("-pki")}
        own = {f"{FLEET_NAMES.get(name, name)}-pki"} & issued.keys()
        # A broker's certificate is for servers only: its health check has a client's, which may only connect.
        assert seen == own | ({"health-pki"} if name == "mosquitto" else set()), name
        assert all(ro for source, _, ro in mounts(name) if source in (*issued, "fleet-keys", "fleet-enrolments"))
        assert "authority-data" not in {source for source, _, _ in mounts(name)}
    assert {name for name in SERVICES if "fleet-keys" in {source for source, _, _ in mounts(name)}} == {
        "identities", "renewal", "fleet",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["bridge", "processor", "recorder", "topics"])
def test_roles_connect_to_kafka_with_their_own_certificate(name: str) -> None:
    variables = OURS[name]["environment"]
    assert variables["POINTILLIST_KAFKA_TLS"] == OWN_FOLDER
    assert {each.lower().removeprefix("pointillist_") for each in variables if each.startswith("POINTILLIST_")} <= {
        *Environment.model_fields
    }
    if name == "bridge":
        assert variables["POINTILLIST_MQTT_TLS"] == OWN_FOLDER
        assert Path(variables["POINTILLIST_SHARE_FILE"]).parent == Path(OWN_FOLDER)
    if name != "topics":
        assert variables["POINTILLIST_GENERATIONS_FILE"] == f"{OWN_FOLDER}/generations.json"


def test_kafka_has_the_same_security_settings_as_in_up(tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    folder.mkdir()
    local = dict(line.split("=", 1) for line in kafka_security(make_fleet(tmp_path / "fleet").pki, folder).splitlines())
    variables = SERVICES["kafka"]["environment"]
    for name, value in local.items():
        deployed = variables.get(f"KAFKA_{name.upper().replace('.', '_')}", "").replace("$$", "$")
        if name.endswith("location"):
            assert deployed.startswith("/etc/kafka/pki/")
        else:
            assert deployed == value, name
    assert set(variables["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")) == {"BROKER:SSL", "CONTROLLER:SSL"}
