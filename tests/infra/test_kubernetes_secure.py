"""`infra/kubernetes` with TLS: the certificates of each role, and the same rights as in `up`."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.admission.camera_revocation import revoke
from infra.local.mosquitto import Mosquitto, mosquitto_binary
from infra.local.ports import free_port, is_free
from infra.pki.authority import Authority
from infra.pki.kafka_rights import SUPER_USERS, kafka_rights
from infra.pki.roles import Roles, role_folder, role_tls
from infra.preflight.brokers import require_mqtt
from infra.state_folder import Layout
from schemas.errors import BrokerError
from schemas.identity import CameraId
from schemas.topics import Channel, mqtt_topic
from schemas.transport.access import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Tls, secured
from tests.infra.secure import MqttVisitor, enroll_camera, make_fleet
from tests.infra.test_kubernetes import ROLES, containers, each_overlay, environment, of_kind, secrets_of
from tests.waiting import PATIENCE_S, wait_until


@each_overlay
def test_every_role_connects_to_kafka_by_tls_with_its_own_certificate(overlay: str) -> None:
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
        files = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
        assert files == {AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE}
    for scaled in of_kind(overlay, "ScaledObject").values():
        for trigger in (each for each in scaled["spec"]["triggers"] if each["type"] == "kafka"):
            assert trigger["metadata"]["tls"] == "enable"
            (login,) = of_kind(overlay, "TriggerAuthentication").values()
            assert trigger["authenticationRef"] == {"name": login["metadata"]["name"]}
            assert {entry["name"] for entry in login["spec"]["secretTargetRef"]} - users.keys() == {
                f"{kafka['metadata']['name']}-cluster-ca-cert"
            }


@each_overlay
def test_roles_have_the_same_rights_in_kafka_as_in_up_and_the_scaler_only_describes(overlay: str) -> None:
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
    assert named == set(SUPER_USERS) - {"kafka"}, "Strimzi adds its own nodes itself"


@pytest.fixture
def fleet(tmp_path: Path) -> Layout:
    layout = make_fleet(tmp_path / "fleet")
    layout.fleet_secret()
    return layout


@contextlib.contextmanager
def deployed_mosquitto(fleet: Layout, folder: Path) -> Iterator[tuple[int, int]]:
    """Run mosquitto with the command and the files of its pod. Yield the ports for cameras and for bridges."""
    cameras, bridges = free_port(), free_port()
    # The container's paths are in a temporary folder of this machine.
    folders = {
        "/mosquitto/pki": role_folder(fleet.pki, "mosquitto"), "/mosquitto/shared": folder / "shared",
        "/mosquitto/config": folder / "config", "/mosquitto/data": folder / "data",
    }  # fmt: skip
    folders["/mosquitto/data"].mkdir(parents=True)

    def with_local_paths(text: str) -> str:
        for path, folder in folders.items():
            text = text.replace(path, str(folder))
        return text

    for name, path in (("mosquitto", "/mosquitto/shared"), ("mosquitto-bridges", "/mosquitto/config")):
        folders[path].mkdir()
        for file, text in of_kind("cpu", "ConfigMap")[name]["data"].items():
            text = text.replace("8883", f"{cameras} 127.0.0.1").replace("8884", f"{bridges} 127.0.0.1")
            (folders[path] / file).write_text(with_local_paths(text))
    main = folders["/mosquitto/config"] / "bridges.conf"
    main.write_text(f"user {getpass.getuser()}\n{main.read_text()}")
    (_, container, _) = next(each for each in containers("cpu") if each[0] == Mosquitto.role)
    path = f"{Path(mosquitto_binary()).parent}:/usr/bin:/bin"
    command = [with_local_paths(word) for word in container["command"]]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"PATH": path})
    try:
        require_mqtt(("127.0.0.1", bridges), 60.0, role_tls(fleet.pki, "bridge"))
        yield cameras, bridges
    finally:
        started.terminate()
        started.wait(PATIENCE_S)
    assert is_free(cameras)
    assert is_free(bridges)


@pytest.mark.brokers
def test_bridges_may_share_a_certificate_and_a_camera_has_one_session(fleet: Layout, tmp_path: Path) -> None:
    bridge, door = role_tls(fleet.pki, "bridge"), enroll_camera(fleet, "site/door")
    topic = mqtt_topic(CameraId("site/door"), Channel.META)
    with deployed_mosquitto(fleet, tmp_path) as (cameras, bridges):
        with (
            MqttVisitor(("127.0.0.1", bridges), bridge, "bridge-a") as first,
            MqttVisitor(("127.0.0.1", bridges), bridge, "bridge-b") as second,
            MqttVisitor(("127.0.0.1", cameras), door, "anything") as camera,
        ):
            for visitor in (first, second):
                visitor.subscribe(topic)
            assert camera.publish(topic) == 0
            for visitor in (first, second):
                visitor.wait_for_messages(1)
            # On the cameras' listener, the certificate's name is the client id: a second client takes over the session.
            with MqttVisitor(("127.0.0.1", cameras), door, "another"):
                assert camera.disconnected.wait(60)
            assert not first.disconnected.is_set()
        with pytest.raises(BrokerError, match="a request for a certificate"):
            require_mqtt(("127.0.0.1", bridges), 60.0, Tls(Authority(fleet.pki).pem))


@pytest.mark.brokers
def test_a_revoked_camera_is_refused_without_a_restart_after_the_mounted_lists_change(
    fleet: Layout, tmp_path: Path
) -> None:
    camera = CameraId("site/door")
    door, porch = enroll_camera(fleet, camera), enroll_camera(fleet, "site/porch")
    with deployed_mosquitto(fleet, tmp_path) as (cameras, _):
        address = ("127.0.0.1", cameras)
        with MqttVisitor(address, porch, "porch") as other:
            require_mqtt(address, 60.0, door)
            revoke(fleet, camera, 60.0)

            def is_refused() -> bool:
                try:
                    require_mqtt(address, 0.1, door)
                except BrokerError as error:
                    return "has been revoked" in str(error)
                return False

            wait_until(is_refused, "the broker to read its lists again")
            assert not other.disconnected.is_set(), "it has not been restarted"


@pytest.mark.brokers
def test_the_broker_presents_its_renewed_certificate_without_a_restart(fleet: Layout, tmp_path: Path) -> None:
    bridge = role_tls(fleet.pki, "bridge")
    with deployed_mosquitto(fleet, tmp_path) as (_, bridges):

        def presented() -> bytes | None:
            with (
                socket.create_connection(("127.0.0.1", bridges), PATIENCE_S) as plain,
                secured(plain, bridge.context(), "127.0.0.1", PATIENCE_S) as link,
            ):
                return link.getpeercert(binary_form=True)

        before = presented()
        with MqttVisitor(("127.0.0.1", bridges), bridge, "bridge-a") as visitor:
            Roles(Authority(fleet.pki)).issue("mosquitto", ())
            wait_until(lambda: presented() != before, "the broker to read its certificate again")
            assert not visitor.disconnected.is_set()
