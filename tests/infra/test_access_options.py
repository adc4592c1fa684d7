"""Options of all commands for access to a broker: TLS, a certificate or a password."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from infra.cli import topics
from infra.cli.access import console_store, mqtt_place, share_of
from infra.local.role_table import RoleTable
from infra.pki.authority import Authority
from infra.pki.kafka_rights import kafka_rights
from infra.pki.roles import role_folder, share_name
from infra.state_folder import Layout
from schemas.errors import BrokerError, ConfigError, StateError
from schemas.transport.access import AUTHORITY_FILE, Tls
from tests.infra.command_line import commands
from tests.infra.secure_kafka import PASSWORD, KafkaWithPasswords
from tests.infra.test_model_command import bundle, init, run

BY_ENROLMENT = {"fleet"}
"""Commands whose cameras connect with the address and certificate of their enrolments."""


COMMANDS: dict[str, set[str]] = {
    " ".join(words): {option for parameter in command.params for option in parameter.opts}
    for words, command in commands().items()
    if not hasattr(command, "commands")
}
"""The options of every command by its words."""


@pytest.mark.parametrize("broker", ["kafka", "mqtt"])
def test_every_command_with_a_broker_address_has_options_for_tls_and_login(broker: str) -> None:
    named = {words for words, options in COMMANDS.items() if f"--{broker}" in options}
    with_options = {words for words in named if {f"--{broker}-tls", f"--{broker}-login-file"} <= COMMANDS[words]}
    issued = {"enroll", "rotate"} | BY_ENROLMENT  # the first two only write the broker's address to a file
    enrolled = {words for words in named if "--enrolment" in COMMANDS[words]}
    assert named - with_options <= issued | enrolled
    assert len(with_options) > 1


def test_topics_and_replicas_use_the_default_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StateError, match=r"^--state: expected a state folder of .*, got none in .*/\.pointillist\. "):
        topics.replicas()
    with pytest.raises(StateError, match=r"^--state: expected a state folder of .*, got none in .*/\.pointillist\. "):
        topics.topics()
    with pytest.raises(
        StateError, match=rf"got none in {tmp_path}\. Change to the folder in which `up` was started, or correct "
    ):
        topics.topics(state=Path())
    (tmp_path / "roles.json").write_text("{}")
    with pytest.raises(StateError, match=rf"^{tmp_path}: expected a running system, got none\. Start it with `pointi"):
        topics.topics(state=Path())
    table = RoleTable(tmp_path)  # `up` holds the folder before it starts the first role
    with pytest.raises(StateError, match="expected a running system, got one that starts or stops"):
        topics.topics(state=Path())
    table.close()


def test_the_help_of_rights_names_every_role_with_rights() -> None:
    (rights,) = (each for each in commands()["topics",].params if each.name == "rights")
    assert {right.role for right in kafka_rights()} <= set(re.findall(r"\w+", rights.help))


NAMES = ("publish", "rollback", "list", "status", "candidate", "promote", "dismiss")


def test_every_command_for_models_has_options_for_kafka_with_tls() -> None:
    found = {words for words in COMMANDS if words.startswith("model ")}
    assert found == {f"model {name}" for name in NAMES}
    assert all({"--kafka", "--kafka-tls", "--kafka-login-file"} <= COMMANDS[words] for words in found)


@pytest.mark.brokers
def test_models_are_published_and_withdrawn_with_a_certificate_and_with_a_password(
    secure_kafka: KafkaWithPasswords, kafka_fleet: Layout, tmp_path: Path
) -> None:
    login, authority = tmp_path / "admin.login", tmp_path / "authority"
    login.write_text(f"admin:{PASSWORD}\n")
    authority.mkdir()
    (authority / AUTHORITY_FILE).write_text((kafka_fleet.pki / AUTHORITY_FILE).read_text())
    ada = init(tmp_path, "ada")
    by_certificate = ("--kafka", secure_kafka.listen, "--kafka-tls", role_folder(kafka_fleet.pki, "admin"))
    by_password = ("--kafka", secure_kafka.login, "--kafka-tls", authority, "--kafka-login-file", login)
    signed = ("--signer", ada.with_suffix(".key"))
    run("publish", bundle(tmp_path, "2"), "--store", tmp_path / "store", *signed, *by_certificate)
    trust = ("--trust", ada.with_suffix(".pub"), "--json")
    for access in (by_certificate, by_password):
        assert json.loads(run("status", *trust, *access).stdout)["live"].startswith("tiny@2")
        assert [row["state"] for row in json.loads(run("list", *trust, *access).stdout)] == ["live"]
    run("rollback", "--own", *signed, *by_password)
    assert json.loads(run("status", *trust, *by_certificate).stdout)["live"] is None

    login.write_text("admin:another")
    with pytest.raises(BrokerError, match="expected an accepted connection, got wrong user or password"):
        run("list", *by_password)
    login.write_text(f"recorder:{PASSWORD}")
    with pytest.raises(
        BrokerError, match=r"Kafka at .*: expected the topic pointillist\.models\.v1 and the right to read"
    ):
        run("list", *by_password)


def test_the_name_of_the_bridges_share_comes_from_a_file_or_from_the_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share_of(None) is None
    assert share_of(tmp_path) is None
    authority = Authority.create(Layout(tmp_path).pki)
    assert share_of(tmp_path) == share_name(authority.folder)
    file = tmp_path / "share"
    file.write_text("given\n")
    monkeypatch.setenv("POINTILLIST_SHARE_FILE", str(file))
    assert share_of(tmp_path) == "given"
    file.unlink()
    with pytest.raises(ConfigError, match=r"share: expected a readable file with the name of the bridges' share, got"):
        share_of(tmp_path)


def test_a_login_is_read_from_standard_input_and_no_password_is_sent_without_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("bridge:se:cret\nmore\n"))
    with pytest.raises(ConfigError, match="a password is sent to the MQTT broker only by TLS"):
        mqtt_place("127.0.0.1:1883", None, "bridge", login=Path("-"))
    monkeypatch.setattr("sys.stdin", io.StringIO("bridge:se:cret\n"))
    found = mqtt_place("mqtts://127.0.0.1:8883", None, "bridge", login=Path("-"))
    assert found.login is not None
    assert (found.login.user, found.login.password.get_secret_value()) == ("bridge", "se:cret")
    assert found.tls == Tls(None)
    with pytest.raises(ConfigError, match=r"none: expected a readable login, got No such file"):
        mqtt_place("mqtts://127.0.0.1:8883", None, "bridge", login=tmp_path / "none")


@pytest.mark.parametrize(
    ("address", "message"),
    [("http://a:1", "^--mqtt: expected host:port .*got the scheme http://"), ("mqtt://a:x", "a:x")],
)
def test_an_invalid_address_is_one_error_line(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mqtt_place(address, None, "bridge")


def test_the_console_s_database_is_that_of_the_option_or_of_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_STORE", "postgresql://db/console")
    assert console_store("env:POINTILLIST_STORE", tmp_path) == "postgresql://db/console"
    assert console_store("", tmp_path) == Layout(tmp_path.resolve()).console_url
    assert console_store("", None) == ""
    with pytest.raises(ConfigError, match=r"^database URL: expected sqlite:///FILE or "):
        console_store("env:POINTILLIST_ABSENT", tmp_path)
