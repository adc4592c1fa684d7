"""Commands in messages name the state folder that they are about, in a form that a shell reads as one word."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.cameras.identity import camera_identity
from infra.cli.access import enrolments
from infra.pki.authority import Authority
from infra.pki.enrolment import Enrolment
from infra.pki.roles import role_tls
from infra.state_folder import Layout, write_secret
from infra.up.console_address import check_console
from infra.up.listener import listener_for_devices
from infra.up.settings import UpSettings
from infra.up.system_state import known_camera, role_states
from schemas.errors import UserError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.runtime.json_files import write_json
from tests.infra.command_line import parse_arguments, refusal, run

DOOR, GATE = CameraId("site/door"), CameraId("site/gate")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Create a state folder whose name a shell would split into words."""
    folder = tmp_path / "my fleet; rm"
    folder.mkdir()
    return Layout(folder)


def command_in(message: str) -> list[str]:
    """Return the words of the only command in a message, split like a shell does."""
    (command,) = re.findall(r"`(pointillist .*?)`", message)
    return shlex.split(command)


def read_idle_roles(layout: Layout) -> None:
    write_json(layout.folder / "roles.json", {})
    role_states(layout)


def enrolled_in_part(layout: Layout) -> None:
    layout.enrolment(DOOR).parent.mkdir(parents=True)
    layout.enrolment(DOOR).write_text("")
    enrolments(layout, [DOOR, GATE])


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (read_idle_roles, "up"),
        (lambda layout: known_camera(layout, DOOR), "cameras"),
        (lambda layout: check_console(UpSettings(http="0.0.0.0:8080", state=layout.folder), layout), "user add NAME"),
        (lambda layout: role_tls(layout.pki, "bridge"), "ca role bridge"),
        (lambda layout: Authority(layout.pki), "ca init"),
    ],
)
def test_a_command_in_an_error_has_the_state_folder(
    layout: Layout, act: Callable[[Layout], object], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        act(layout)
    command = command_in(str(refused.value))
    assert command == ["pointillist", *words.split(), "--state", str(layout.folder.resolve())]
    parse_arguments(command[1:])


def test_the_key_of_another_fleet_leads_to_the_right_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_secret(layout.secret_file, bytes(32).hex())
    monkeypatch.setenv("POINTILLIST_CAMERA_KEY", derive_camera_key(bytes(range(32)), DOOR).export())
    with pytest.raises(UserError) as refused:
        camera_identity(DOOR, None, layout.folder)
    words = command_in(str(refused.value))
    assert words == ["pointillist", "key", DOOR, "--state", str(layout.folder.resolve())]
    monkeypatch.delenv("POINTILLIST_CAMERA_KEY")
    assert run(*words[1:]).stdout.split()[0] == derive_camera_key(bytes(32), DOOR).export()


def test_the_command_of_down_has_the_state_folder(layout: Layout) -> None:
    message = refusal(run("down", "--state", layout.folder))
    assert command_in(message) == ["pointillist", "up", "--state", str(layout.folder.resolve())]


def test_the_command_of_status_after_the_end_of_up_has_the_state_folder(layout: Layout) -> None:
    write_json(layout.folder / "roles.json", {"bridge": {"pid": 1, "listen": None, "metrics": None}})
    (command,) = re.findall(r"options: (pointillist .*) …", run("status", "--state", layout.folder).output)
    assert shlex.split(command) == ["pointillist", "up", "--state", str(layout.folder.resolve())]


def test_the_command_after_the_revocation_of_a_role_has_the_folder_of_a_certificate(layout: Layout) -> None:
    Authority.create(layout.pki)
    assert run("ca", "init", "--keep", "--state", layout.folder).exit_code == 0
    words = command_in(run("revoke", "--role", "bridge", "--state", layout.folder).stdout)
    assert words[-2:] == ["--kafka-tls", str(layout.folder.resolve() / "pki" / "roles" / "admin")]


def test_the_command_of_a_missing_enrolment_writes_it(layout: Layout) -> None:
    Authority.create(layout.pki)
    assert run("ca", "init", "--keep", "--state", layout.folder).exit_code == 0
    with pytest.raises(UserError) as refused:
        enrolled_in_part(layout)
    assert run(*command_in(str(refused.value))[1:]).exit_code == 0
    assert Enrolment.read(layout.enrolment(GATE)).camera == GATE


def test_an_address_in_brackets_is_one_word_for_every_shell(layout: Layout) -> None:
    write_json(layout.run, {"options": {"listen": "127.0.0.2:8883"}})
    with pytest.raises(UserError) as refused:
        listener_for_devices(layout, "[fd00::7]:8883")
    assert "`pointillist up --listen '[fd00::7]:8883' --state '" in str(refused.value)
