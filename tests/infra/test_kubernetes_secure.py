"""`infra/kubernetes`: every connection is by TLS under a name of its own, with the rights that `up` gives."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.local.mosquitto import Mosquitto, mosquitto_binary
from infra.local.ports import free_port, is_free
from infra.pki.authority import Authority
from infra.pki.kafka_rights import SUPER_USERS, kafka_rights
from infra.pki.roles import role_folder, role_tls
from infra.preflight.brokers import require_mqtt
from infra.process.environment import Environment
from infra.revocation.cameras import revoke
from infra.state_folder import Layout
from schemas.errors import BrokerError
from schemas.identity import CameraId
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from schemas.transport.access import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Tls
from tests.infra.command_line import parsed
from tests.infra.kustomize import Resource, build, identity
from tests.infra.secure import Visitor, enrolled, make_fleet
from tests.infra.test_compose import SERVICES
from tests.infra.test_kubernetes import (
    KUBERNETES,
    OF_THE_DATABASE,
    ROLES,
    check,
    containers,
    each_overlay,
    environment,
    of_kind,
    secrets_of,
)
from tests.waiting import wait_until


@each_overlay
def test_every_role_reaches_kafka_by_tls_with_a_certificate_of_its_own(overlay: str) -> None:
    (kafka,) = of_kind(overlay, "Kafka").values()
    for listener in kafka["spec"]["kafka"]["listeners"]:
        assert listener["tls"] is True
        assert listener["authentication"] == {"type": "tls"}
    assert kafka["spec"]["kafka"]["authorization"]["type"] == "simple"
    users = of_kind(overlay, "KafkaUser")
    for name, container, spec in containers(overlay):
        if name not in ROLES:
            continue
        folder = environment(container)["POINTILLIST_KAFKA_TLS"]["value"]
        (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == folder)
        (volume,) = (each for each in spec["volumes"] if each["name"] == mount["name"])
        assert secrets_of(volume) == [f"{kafka['metadata']['name']}-cluster-ca-cert", name]
        assert name in users
        given = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
        assert given == {AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE}
    for scaled in of_kind(overlay, "ScaledObject").values():
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["metadata"]["tls"] == "enable"
            (known,) = of_kind(overlay, "TriggerAuthentication").values()
            assert trigger["authenticationRef"] == {"name": known["metadata"]["name"]}
            assert {entry["name"] for entry in known["spec"]["secretTargetRef"]} - users.keys() == {
                f"{kafka['metadata']['name']}-cluster-ca-cert"
            }


@each_overlay
def test_roles_have_the_rights_in_kafka_that_up_gives_them_and_the_scaler_only_looks(overlay: str) -> None:
    found = {
        (name, acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"], operation)
        for name, user in of_kind(overlay, "KafkaUser").items()
        for acl in user["spec"].get("authorization", {}).get("acls", [])
        for operation in acl["operations"]
    }
    rights = {
        (
            right.role, right.resource.name.lower(), right.name,
            {"PREFIXED": "prefix", "LITERAL": "literal"}[right.pattern.name], right.operation.name.capitalize(),
        )
        for right in kafka_rights()
    }  # fmt: skip
    assert {each for each in found if each[0] != "scaler"} == rights
    assert {each[-1] for each in found if each[0] == "scaler"} == {"Describe"}
    (kafka,) = of_kind(overlay, "Kafka").values()
    named = {name.removeprefix("CN=") for name in kafka["spec"]["kafka"]["authorization"]["superUsers"]}
    assert named == set(SUPER_USERS) - {"kafka"}, "Strimzi's own nodes need no mention"


@each_overlay
def test_the_database_is_reached_by_verified_tls(overlay: str) -> None:
    known = {option.envvar.decode(): option.keyword for option in psycopg.pq.Conninfo.get_defaults() if option.envvar}
    assert known["PGSSLROOTCERT"] == b"sslrootcert"
    for name, container, spec in containers(overlay):
        if name not in OF_THE_DATABASE:
            continue
        variables = environment(container)
        assert variables["PGSSLMODE"]["value"] == "verify-full"
        root = Path(variables["PGSSLROOTCERT"]["value"])
        volume = mounted(container, spec, str(root.parent))
        assert root.name in {item["path"] for item in volume["secret"]["items"]}
        assert parsed(container["args"])["database"] == "postgresql+psycopg:///pointillist"


@each_overlay
def test_the_console_has_a_certificate_of_its_own_and_asks_for_passwords(overlay: str) -> None:
    (found,) = ((container, spec) for name, container, spec in containers(overlay) if name == "console")
    container, spec = found
    options = parsed(container["args"])
    assert secrets_of(mounted(container, spec, str(options["http_tls"]))) == ["pointillist-console-pages"]
    assert tuple(options["allowed_host"]) == ("console",)
    assert of_kind(overlay, "Service")["console"]["spec"]["selector"] == {"app.kubernetes.io/name": "console"}
    users = Path(options["users"])
    assert secrets_of(mounted(container, spec, str(users.parent))) == ["pointillist-console-users"]


def test_the_console_shows_what_the_recorder_keeps_and_changes_nothing_of_it() -> None:
    found = {name: (container, spec) for name, container, spec in containers("cpu")}
    (container, spec), (recorder, its_spec) = found["console"], found["recorder"]
    folder, its_folder = (parsed(each["args"])["quarantine"] for each in (container, recorder))
    assert mounted(container, spec, folder) == mounted(recorder, its_spec, its_folder)
    (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == folder)
    assert mount["readOnly"] is True
    # A volume that one node may mount.
    (rule,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": "recorder"}}
    assert rule["topologyKey"] == "kubernetes.io/hostname"


@pytest.mark.parametrize("name", ["bridge", "console", "monitor"])
def test_roles_reach_mosquitto_by_a_certificate_of_their_own_and_may_reach_its_port(name: str) -> None:
    (_, container, spec) = next(each for each in containers("cpu") if each[0] == name)
    volume = mounted(container, spec, environment(container)["POINTILLIST_MQTT_TLS"]["value"])
    assert secrets_of(volume) == [f"pointillist-{name}-mqtt"]
    port = "bridges" if name == "bridge" else "mqtts"
    numbers = {each["name"]: each["port"] for each in of_kind("cpu", "Service")[Mosquitto.role]["spec"]["ports"]}
    assert parsed(container["args"])["mqtt"] == f"mqtts://{Mosquitto.role}:{numbers[port]}"
    policies = of_kind("cpu", "NetworkPolicy")
    policy = policies["bridge-to-mosquitto" if name == "bridge" else "roles-to-mosquitto"]["spec"]
    assert [each["port"] for rule in policy["egress"] for each in rule["ports"]] == [port]
    assert name in json.dumps(policy["podSelector"])


def mounted(container: dict[str, Any], spec: dict[str, Any], folder: str) -> dict[str, Any]:
    """The volume that a container has at `folder`."""
    (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == folder)
    (volume,) = (each for each in spec["volumes"] if each["name"] == mount["name"])
    found: dict[str, Any] = volume
    return found


@each_overlay
def test_keys_that_are_revoked_reach_every_role_that_has_keys(overlay: str) -> None:
    for name, container, spec in containers(overlay):
        if name in ROLES - {"monitor"}:  # which audits what is recorded
            file = Path(environment(container)["POINTILLIST_GENERATIONS_FILE"]["value"])
            mount = next(each for each in container["volumeMounts"] if each["mountPath"] == str(file.parent))
            assert "subPath" not in mount, "what is mounted so never changes"
            volume = next(each for each in spec["volumes"] if each["name"] == mount["name"])
            assert volume["configMap"] == {"name": "generations"}, "as `kubectl create configmap --from-file` makes it"
            assert file.name == Layout(Path()).generations.name
    assert "generations_file" in Environment.model_fields


def test_only_bridges_reach_the_listener_where_sessions_are_their_own() -> None:
    policies = of_kind("cpu", "NetworkPolicy")
    rules = policies["cameras-to-mosquitto"]["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in rules] == [["mqtts"], ["bridges"]]
    assert rules[1]["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "bridge"}}}]
    (_, container, _) = next(each for each in containers("cpu") if each[0] == "bridge")
    ports = {each["name"]: each["port"] for each in of_kind("cpu", "Service")[Mosquitto.role]["spec"]["ports"]}
    assert parsed(container["args"])["mqtt"] == f"mqtts://{Mosquitto.role}:{ports['bridges']}"


def with_component(folder: Path, name: str) -> dict[tuple[str, str], Resource]:
    """What the base comes to with a component."""
    document = {"namespace": "pointillist", "resources": ["../base"], "components": [f"../components/{name}"]}
    overlay = folder / "overlay"
    overlay.mkdir()
    for each in ("base", "components"):
        (folder / each).symlink_to(KUBERNETES / each)
    (overlay / "kustomization.yaml").write_text(json.dumps(document))
    return {identity(each): each for each in build(overlay)}


def test_an_alertmanager_comes_as_a_component_with_the_routes_of_the_others(tmp_path: Path) -> None:
    found = with_component(tmp_path, "alertmanager")
    alertmanager, service = found["StatefulSet", "alertmanager"], found["Service", "alertmanager"]
    for resource in (alertmanager, service, found["NetworkPolicy", "alertmanager-to-receivers"]):
        check(resource)
    spec = alertmanager["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    options = dict(word.removeprefix("--").split("=", 1) for word in container["args"])
    file = Path(options["config.file"])
    volume = mounted(container, spec, str(file.parent))
    assert file.name in found["ConfigMap", volume["configMap"]["name"]]["data"]
    assert options["storage.path"] in {each["mountPath"] for each in container["volumeMounts"]}
    assert container["image"] == SERVICES["alertmanager"]["image"], "as in compose"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    # Whom people are told by has passwords, which are in no ConfigMap.
    assert mounted(container, spec, "/run/secrets/receivers")["secret"]["optional"] is True
    labels = alertmanager["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}


def test_the_monitor_posts_alerts_to_the_alertmanager_of_the_component(tmp_path: Path) -> None:
    found = with_component(tmp_path, "alertmanager")
    options = parsed(found["Deployment", "monitor"]["spec"]["template"]["spec"]["containers"][0]["args"])
    assert options["alertmanager"] == "http://alertmanager:9093"
    (port,) = found["Service", "alertmanager"]["spec"]["ports"]
    assert port["port"] == 9093
    to, ours = found["NetworkPolicy", "monitor-to-alertmanager"], found["NetworkPolicy", "alertmanager-from-monitor"]
    for policy, way, peers in ((to, "egress", "to"), (ours, "ingress", "from")):
        check(policy)
        (rule,) = policy["spec"][way]
        assert rule["ports"] == [{"protocol": "TCP", "port": port["targetPort"]}]
        names = [policy["spec"]["podSelector"], *(each["podSelector"] for each in rule[peers])]
        assert {each["matchLabels"]["app.kubernetes.io/name"] for each in names} == {"monitor", "alertmanager"}


def test_several_recorders_come_as_a_component_whose_resources_are_valid(tmp_path: Path) -> None:
    found = with_component(tmp_path, "recorders")
    recorder, scaled = found["Deployment", "recorder"], found["ScaledObject", "recorder"]
    for resource in (recorder, scaled, found["PersistentVolumeClaim", "quarantine"], found["KafkaUser", "scaler"]):
        check(resource)
    (trigger,) = scaled["spec"]["triggers"]
    group, topic = trigger["metadata"]["consumerGroup"], trigger["metadata"]["topic"]
    container = recorder["spec"]["template"]["spec"]["containers"][0]
    assert parsed(container["args"])["group"] == group
    assert topic == KafkaTopic.VERDICTS
    assert "replicas" not in recorder["spec"]
    # The group and that of its letters are the recorder's, and the scaler may look at what it scales by.
    assert group.startswith(next(each.name for each in kafka_rights() if each.pattern.name == "PREFIXED"))
    looks = {
        acl["resource"]["name"] for acl in found["KafkaUser", "scaler"]["spec"]["authorization"]["acls"]
        if acl["operations"] == ["Describe"]
    }  # fmt: skip
    assert {group, topic} <= looks


@pytest.fixture
def fleet(tmp_path: Path) -> Layout:
    layout = make_fleet(tmp_path / "fleet")
    layout.fleet_secret()
    return layout


@contextlib.contextmanager
def as_deployed(fleet: Layout, folder: Path) -> Iterator[tuple[int, int]]:
    """Mosquitto with the command and the files of its pod: the ports of cameras and of bridges."""
    cameras, bridges = free_port(), free_port()
    # What a container sees under these paths is in this machine's elsewhere.
    places = {
        "/mosquitto/pki": role_folder(fleet.pki, "mosquitto"), "/mosquitto/shared": folder / "shared",
        "/mosquitto/config": folder / "config", "/mosquitto/data": folder / "data",
    }  # fmt: skip
    places["/mosquitto/data"].mkdir(parents=True)

    def here(text: str) -> str:
        for path, place in places.items():
            text = text.replace(path, str(place))
        return text

    for name, path in (("mosquitto", "/mosquitto/shared"), ("mosquitto-bridges", "/mosquitto/config")):
        places[path].mkdir()
        for file, text in of_kind("cpu", "ConfigMap")[name]["data"].items():
            text = text.replace("8883", f"{cameras} 127.0.0.1").replace("8884", f"{bridges} 127.0.0.1")
            (places[path] / file).write_text(here(text))
    main = places["/mosquitto/config"] / "bridges.conf"
    main.write_text(f"user {getpass.getuser()}\n{main.read_text()}")
    (_, container, _) = next(each for each in containers("cpu") if each[0] == Mosquitto.role)
    path = f"{Path(mosquitto_binary()).parent}:/usr/bin:/bin"
    command = [here(word) for word in container["command"]]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"PATH": path})
    try:
        require_mqtt(("127.0.0.1", bridges), 10.0, role_tls(fleet.pki, "bridge"))
        yield cameras, bridges
    finally:
        started.terminate()
        started.wait(20)
    assert is_free(cameras)
    assert is_free(bridges)


@pytest.mark.brokers
def test_bridges_of_one_certificate_work_side_by_side_and_a_camera_has_one_session(
    fleet: Layout, tmp_path: Path
) -> None:
    bridge, door = role_tls(fleet.pki, "bridge"), enrolled(fleet, "site/door")
    topic = mqtt_topic(CameraId("site/door"), Channel.META)
    with as_deployed(fleet, tmp_path) as (cameras, bridges):
        with (
            Visitor(("127.0.0.1", bridges), bridge, "bridge-a") as first,
            Visitor(("127.0.0.1", bridges), bridge, "bridge-b") as second,
            Visitor(("127.0.0.1", cameras), door, "anything") as camera,
        ):
            for visitor in (first, second):
                visitor.subscribe(topic)
            assert camera.publish(topic) == 0
            for visitor in (first, second):
                visitor.await_heard(1)
            # The other listener knows a session by its certificate, so that the same one again takes it over.
            with Visitor(("127.0.0.1", cameras), door, "another"):
                assert camera.gone.wait(10)
            assert not first.gone.is_set()
        with pytest.raises(BrokerError, match="the server asks for a certificate"):
            require_mqtt(("127.0.0.1", bridges), 5.0, Tls(Authority(fleet.pki).pem))


@pytest.mark.brokers
def test_a_revoked_camera_is_refused_without_a_restart_when_the_mounted_lists_change(
    fleet: Layout, tmp_path: Path
) -> None:
    camera = CameraId("site/door")
    door, porch = enrolled(fleet, camera), enrolled(fleet, "site/porch")
    with as_deployed(fleet, tmp_path) as (cameras, _):
        address = ("127.0.0.1", cameras)
        with Visitor(address, porch, "porch") as other:
            require_mqtt(address, 5.0, door)
            revoke(fleet, camera)

            def is_refused() -> bool:
                try:
                    require_mqtt(address, 0.1, door)
                except BrokerError as error:
                    return "has been revoked" in str(error)
                return False

            wait_until(is_refused, "the broker to read its lists again")
            assert not other.gone.is_set(), "it has not been restarted"
