"""Wrong key material: each command names it in one error line, and running clients stay connected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.harness.services import started
from infra.local.mosquitto import Mosquitto
from infra.pki.authority import Authority
from infra.pki.enrolment import enroll
from infra.pki.roles import role_folder
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.runtime.atomic_file import write_text
from schemas.topics import Channel, mqtt_topic
from tests.infra import command_line
from tests.infra.secure import SECRET, MqttVisitor, enroll_camera, make_fleet
from tests.infra.secure_kafka import PASSWORD, KafkaWithPasswords
from tests.infra.test_compose import COMPOSE

pytestmark = pytest.mark.brokers
DISTRUST = "the server's certificate is not to be trusted: it is "
CORRECT = "Correct the address, the login or the certificate."
ANOTHER = f"{DISTRUST}of another authority than the one we were given"


@dataclass
class Material:
    """Key material of our fleet and of another one, as folders for options of commands."""

    ours: Layout
    other: Layout
    folder: Path

    def role(self, fleet: Layout, name: str) -> Path:
        return role_folder(fleet.pki, name)

    def mixed(self, *, trusts: Layout, is_of: Layout, days: float = 30) -> Path:
        """Write a certificate of one fleet next to the authority of another, and return their folder."""
        folder = self.folder / f"{trusts.folder.name}-{is_of.folder.name}-{days}"
        issued = Authority(is_of.pki).issue("admin", days=days)
        write_text(folder / "ca.crt", (trusts.pki / "ca.crt").read_text(), private=True)
        write_text(folder / "tls.crt", issued.certificate, private=True)
        write_text(folder / "tls.key", issued.key, private=True)
        return folder

    def trust_alone(self) -> Path:
        write_text(self.folder / "trust" / "ca.crt", (self.ours.pki / "ca.crt").read_text(), private=True)
        return self.folder / "trust"

    def login(self, text: str) -> Path:
        write_text(self.folder / "login", text, private=True)
        return self.folder / "login"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_fleet(tmp_path_factory.mktemp("other"))


@pytest.fixture
def material(kafka_fleet: Layout, other: Layout, tmp_path: Path) -> Material:
    return Material(kafka_fleet, other, tmp_path / "material")


@pytest.fixture(scope="module")
def broker(kafka_fleet: Layout) -> Iterator[Mosquitto]:
    with started(Mosquitto(kafka_fleet.folder, pki=kafka_fleet.pki)) as mosquitto:
        yield mosquitto


def refusal(*arguments: object) -> str:
    """Return the error line of a command, and assert that it contains no secret."""
    line = command_line.refusal(command_line.run(*arguments))
    assert "PRIVATE" not in line
    assert PASSWORD not in line
    return line


FOREIGN = "a rejection of our certificate: it is of another fleet or expired"
WRONG: dict[str, tuple[Callable[[Material], Path], str]] = {
    "another fleet's": (lambda m: m.role(m.other, "admin"), ANOTHER),
    "of another fleet, who trusts us": (lambda m: m.mixed(trusts=m.ours, is_of=m.other), FOREIGN),
    "expired": (lambda m: m.mixed(trusts=m.ours, is_of=m.ours, days=-0.5), FOREIGN),
    "none": (lambda m: m.trust_alone(), "a request for a certificate, and ours is missing or damaged"),
}


@pytest.mark.parametrize("command", ["topics", "model list", "audit", "record", "process"])
def test_every_command_names_the_fault_of_its_kafka_certificate_or_password(
    secure_kafka: KafkaWithPasswords, material: Material, tmp_path: Path, command: str
) -> None:
    options: dict[str, list[object]] = {
        "audit": ["--database", f"sqlite:///{tmp_path}/records.sqlite"],
        "record": ["--database", f"sqlite:///{tmp_path}/records.sqlite", "--quarantine", tmp_path / "quarantine"],
        "process": ["--bundle", "scene"],
    }
    arguments = [*command.split(), *options.get(command, [])]
    prefix = f"Kafka broker at {secure_kafka.host}"
    for material_folder, words in WRONG.values():
        line = refusal(*arguments, "--kafka", secure_kafka.listen, "--kafka-tls", material_folder(material))
        assert line == f"{prefix}:{secure_kafka.port}: expected an accepted connection, got {words}. {CORRECT}"
    login_options = ("--kafka", secure_kafka.login, "--kafka-tls", material.trust_alone(), "--kafka-login-file")
    line = refusal(*arguments, *login_options, material.login(f"recorder:not {PASSWORD}"))
    assert line.endswith(f"expected an accepted connection, got wrong user or password. {CORRECT}")
    assert (
        refusal(*arguments, *login_options, material.login(PASSWORD))
        == "login: expected user:password in one line, got another form. Correct it."
    )
    assert not list(tmp_path.glob("*.sqlite"))


@pytest.mark.parametrize(
    ("command", "whose", "words"),
    [
        ("process", "recorder", "the processor to have the right to write pointillist.comparisons.v1 and "),
        (
            "bridge",
            "recorder",
            "the bridge to have the right to write pointillist.dead-letters.v1 and write pointillist.frames.v1, ",
        ),
        ("record", "health", "the recorder to have the right to write pointillist.alerts.v1 and "),
    ],
)
def test_a_role_without_its_rights_in_kafka_names_the_missing_ones(
    secure_kafka: KafkaWithPasswords, broker: Mosquitto, material: Material, tmp_path: Path, command: str, whose: str,
    words: str,
) -> None:  # fmt: skip
    options: dict[str, list[object]] = {
        "record": ["--database", f"sqlite:///{tmp_path}/records.sqlite", "--quarantine", tmp_path / "quarantine"],
        "process": ["--bundle", "scene"],
        "bridge": ["--mqtt", broker.listen, "--mqtt-tls", material.role(material.ours, "bridge")],
    }
    tls = material.role(material.ours, whose)
    line = refusal(command, *options[command], "--kafka", secure_kafka.listen, "--kafka-tls", tls)
    assert line.startswith(f"Kafka at {secure_kafka.listen}: expected {words}")
    assert "Run `pointillist topics --rights`" in line
    assert not list(tmp_path.glob("*.sqlite"))


def test_a_group_that_recorders_may_not_join_is_an_error_at_the_start(
    secure_kafka: KafkaWithPasswords, material: Material, tmp_path: Path
) -> None:
    database = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    arguments = ["record", "--database", database, "--quarantine", tmp_path / "quarantine"]
    arguments += ["--kafka", secure_kafka.listen, "--kafka-tls", material.role(material.ours, "recorder"), "--group"]
    assert refusal(*arguments, "mine") == (
        f"Kafka at {secure_kafka.listen}: expected the recorder to have the right to join the group mine and join the "
        "group mine.letters, got a refusal. Run `pointillist topics --rights`, or choose a group whose name begins "
        "with pointillist-recorder."
    )
    # The default group passes this check, and the error is about the database.
    assert "PostgreSQL" in refusal(*arguments, "pointillist-recorders", "--connect-timeout-s", 5)


MQTT_WRONG = WRONG | {
    "of another fleet, who trusts us": (
        WRONG["of another fleet, who trusts us"][0],
        "a rejection of our certificate: its authority is of another fleet",
    ),
    "expired": (WRONG["expired"][0], "our certificate has expired: enrol again"),
    "none": (WRONG["none"][0], "a request for a certificate, and none is given"),
}


@pytest.mark.parametrize("command", ["bridge", "camera settings site/door"])
def test_every_command_names_the_fault_of_its_mqtt_certificate(
    broker: Mosquitto, material: Material, command: str
) -> None:
    options = ["--kafka", "127.0.0.1:1"] if command == "bridge" else []
    camera = CameraId("site/undisturbed")
    with MqttVisitor((broker.host, broker.port), enroll_camera(material.ours, camera)) as running:
        for material_folder, words in MQTT_WRONG.values():
            line = refusal(*command.split(), *options, "--mqtt", broker.listen, "--mqtt-tls", material_folder(material))
            assert line == f"MQTT broker at {broker.listen}: expected an accepted connection, got {words}. {CORRECT}"
        assert running.publish(mqtt_topic(camera, Channel.EVENT)) in (0, 16)
        assert not running.disconnected.is_set()


def test_an_enrolment_of_another_fleet_is_an_error_and_the_camera_of_that_name_stays_connected(
    broker: Mosquitto, material: Material, tmp_path: Path
) -> None:
    camera, file = CameraId("site/door"), tmp_path / "door.enrolment"
    enroll(Authority(material.other.pki), derive_camera_key(SECRET, camera), file, broker.listen)
    with MqttVisitor((broker.host, broker.port), enroll_camera(material.ours, camera)) as running:
        line = refusal("camera", "attach", "/dev/null", "--enrolment", file, "--spool", tmp_path / "spool")
        assert line == f"MQTT broker at {broker.listen}: expected an accepted connection, got {ANOTHER}. {CORRECT}"
        assert running.publish(mqtt_topic(camera, Channel.EVENT)) in (0, 16)
        assert not running.disconnected.is_set()


@pytest.mark.parametrize("command", ["bridge", "camera settings site/door"])
def test_files_without_key_material_are_named(material: Material, tmp_path: Path, command: str) -> None:
    options = ["--kafka", "127.0.0.1:1"] if command == "bridge" else []
    arguments = [*command.split(), *options, "--mqtt", "127.0.0.1:1", "--mqtt-tls"]
    assert "ca.crt: expected the authority's certificate, got " in refusal(*arguments, tmp_path / "none")
    write_text(tmp_path / "bad" / "ca.crt", (material.ours.pki / "ca.crt").read_text(), private=True)
    write_text(tmp_path / "bad" / "tls.crt", "nothing of the kind", private=True)
    assert "expected a certificate and its private key, got files that are not in PEM" in refusal(
        *arguments, tmp_path / "bad"
    )


def test_a_fleet_with_enrolments_of_another_authority_is_an_error(
    broker: Mosquitto, other: Layout, tmp_path: Path
) -> None:
    from producers.simulation.scenario import load_scenario

    scenario, layout = COMPOSE / "scenario.yaml", Layout(tmp_path / "state")
    for planned in load_scenario(scenario).cameras():
        layout.issue_key(planned.camera_id, secret=SECRET)
        enroll(Authority(other.pki), layout.camera_key(planned.camera_id), layout.enrolment(planned.camera_id))
    line = refusal("fleet", "--scenario", scenario, "--state", layout.folder, "--mqtt", broker.listen)
    assert line == f"MQTT broker at {broker.listen}: expected an accepted connection, got {ANOTHER}. {CORRECT}"
