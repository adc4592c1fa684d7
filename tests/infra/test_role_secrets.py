"""The secrets of roles: their parts of the fleet secret, issued by `key --role` and by `up`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from infra.cli.passwords import hidden
from infra.cli.roles import generations_file, role_keys
from infra.local.ports import Ports
from infra.state_folder import Layout, issue_role_secrets, role_file, write_secret
from infra.state_folder.environment import Environment, role_roots
from infra.up.processes import LocalRoles, RoleProcess
from infra.up.settings import UpSettings
from schemas.errors import SecretError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey
from schemas.keys.roots import Role, Root, Roots
from schemas.runtime.json_files import write_json
from tests.infra.command_line import refusal, run

SECRET = "5e" * 32
FLEET = Roots.of_fleet(bytes.fromhex(SECRET))


pytestmark = pytest.mark.usefixtures("no_settings_from_the_environment")


def test_the_key_of_a_role_contains_only_its_root_keys(tmp_path: Path) -> None:
    file = tmp_path / "bridge.secret"
    assert run("key", "--role", "bridge", "--out", str(file), POINTILLIST_FLEET_SECRET=SECRET).exit_code == 0
    assert file.stat().st_mode & 0o077 == 0
    assert file.read_text().strip() == FLEET.of(Role.BRIDGE).export()
    assert FLEET[Root.PICTURE].hex() not in file.read_text()
    assert role_roots(Environment(role_secret_file=file), Role.BRIDGE).export() == file.read_text().strip()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--role", "burglar"], "bridge, processor"),
        ([], "--role"),
        (["site/door", "--role", "bridge"], "--role"),
        (["site/door", "--roles", "/nowhere"], "--roles"),
        (["--role", "bridge", "--generation", "1"], "--generation: expected only with SITE/CAMERA or --scenario"),
        (["--roles", "/nowhere", "--generation", "0"], "--generation: expected only with SITE/CAMERA or --scenario"),
    ],
)
def test_missing_or_contradictory_arguments_of_key_are_named(arguments: list[str], named: str) -> None:
    assert named in refusal(run("key", *arguments, POINTILLIST_FLEET_SECRET=SECRET))


def test_a_role_derives_only_its_root_keys_and_prefers_its_own_secret() -> None:
    other = Roots.of_fleet(b"the secret of another fleet").of(Role.BRIDGE)
    both = Environment.model_validate({"fleet_secret": SECRET, "role_secret": other.export()})
    assert role_roots(both, Role.BRIDGE).export() == other.export()
    alone = Environment.model_validate({"fleet_secret": SECRET})
    assert role_roots(alone, Role.BRIDGE).export() == FLEET.of(Role.BRIDGE).export()
    with pytest.raises(SecretError, match="POINTILLIST_ROLE_SECRET"):
        role_roots(Environment(), Role.BRIDGE)


def test_a_role_with_the_secret_of_another_is_one_error_line() -> None:
    line = refusal(
        run(
            *("bridge", "--mqtt", "127.0.0.1:1", "--kafka", "127.0.0.1:1", "--connect-timeout-s", "0"),
            POINTILLIST_ROLE_SECRET=FLEET.of(Role.PROCESSOR).export(),
        )
    )
    assert "the secret of the role bridge: expected the root keys" in line
    assert FLEET[Root.AUTHENTICATION].hex() not in line


def test_up_passes_each_role_its_own_secret_and_none_the_fleet_secret(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLEET_SECRET", "FLEET_SECRET_FILE", "ROLE_SECRET", "ROLE_SECRET_FILE"):
        monkeypatch.setenv(f"POINTILLIST_{name}", "of another system")
    layout = Layout(state_dir)
    issue_role_secrets(layout.roles, layout.fleet_secret())
    seen: dict[str, dict[str, str]] = {}

    def record_environment(process: RoleProcess, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        seen[log.stem] = {name: value for name, value in environment.items() if "SECRET" in name}

    monkeypatch.setattr(RoleProcess, "__init__", record_environment)
    roles = LocalRoles(UpSettings(), layout, Ports(state_dir), "127.0.0.1:1", "127.0.0.1:2")
    _ = [*roles.bridges(), *roles.processors(), roles.recorder(), roles.monitor(), *roles.fleets(1)]
    expected = {
        name: {"POINTILLIST_ROLE_SECRET_FILE": str(role_file(layout.roles, role).resolve())}
        for name, role in (
            ("bridge", Role.BRIDGE),
            ("processor-1", Role.PROCESSOR),
            ("recorder", Role.RECORDER),
            ("monitor", Role.AUDITOR),
        )
    }
    assert seen == expected | {"fleet": {}}
    for role in (Role.BRIDGE, Role.PROCESSOR, Role.RECORDER, Role.AUDITOR):
        file = role_file(layout.roles, role)
        assert file.stat().st_mode & 0o077 == 0
        found = layout.roots(role)
        assert found is not None
        assert found.export() == Roots.of_fleet(layout.fleet_secret()).of(role).export()


def test_up_passes_no_role_the_key_of_a_camera_or_its_own_hidden_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hidden_urls = hidden(["rtsp://ada:secret@10.0.0.7/"], {})
    for name in ("POINTILLIST_CAMERA_KEY", "POINTILLIST_CAMERA_KEY_FILE", *hidden_urls):
        monkeypatch.setenv(name, "private")
    roles = LocalRoles(UpSettings(plain=True), Layout(tmp_path), Ports(tmp_path), "127.0.0.1:1", "127.0.0.1:2")
    for role in (*roles.processors(), *roles.fleets(1)):
        assert isinstance(role.process, RoleProcess)
        assert "private" not in role.process.environment.values()


def test_a_role_needs_no_fleet_secret_in_its_state_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.roots(Role.RECORDER) is None
    issue_role_secrets(layout.roles, bytes.fromhex(SECRET))
    found = layout.roots(Role.RECORDER)
    assert found is not None
    assert found.export() == FLEET.of(Role.RECORDER).export()
    assert not layout.secret_file.exists()


def test_a_role_applies_the_generations_of_the_file_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, own_file = Layout(tmp_path / "state"), tmp_path / "own.json"
    assert generations_file(layout.folder, "bridge") is None
    write_secret(role_file(layout.roles, Role.BRIDGE), FLEET.of(Role.BRIDGE).export())
    assert generations_file(layout.folder, "bridge") == layout.generations
    assert role_keys(layout.folder, "bridge").accepted_from == {}
    write_json(layout.generations, {"site/door": 1})
    assert role_keys(layout.folder, "bridge").accepted_from == {"site/door": 1}
    write_json(own_file, {"site/door": 2})
    monkeypatch.setenv("POINTILLIST_GENERATIONS_FILE", str(own_file))
    assert generations_file(layout.folder, "bridge") == own_file
    assert role_keys(layout.folder, "bridge").accepted_from == {"site/door": 2}
    write_secret(layout.secret_file, SECRET)
    assert generations_file(layout.folder, "bridge") == layout.generations
    assert role_keys(layout.folder, "bridge").accepted_from == {"site/door": 1}


def test_key_prints_the_accepted_generation_and_rejects_an_earlier_one(tmp_path: Path) -> None:
    layout, scenario = Layout(tmp_path / "state"), tmp_path / "scenario.yaml"
    cameras = [{"name": name, "source": {"kind": "scene"}} for name in ("door", "gate")]
    scenario.write_text(yaml.safe_dump({"site": "site", "cameras": cameras}))
    write_secret(layout.secret_file, SECRET)
    write_json(layout.generations, {"site/door": 2})

    def generation(*arguments: str) -> int:
        done = run("key", *arguments, "--state", layout.folder)
        return CameraKey.from_export(CameraId(arguments[0]), done.stdout).generation

    assert (generation("site/door"), generation("site/gate")) == (2, 0)
    assert generation("site/door", "--generation", "3") == 3
    for arguments in (("site/door",), ("--scenario", scenario)):
        line = refusal(run("key", *arguments, "--generation", "1", "--state", layout.folder))
        assert "--generation: expected at least 2 for site/door, got 1." in line
    assert not layout.keys.exists()
    assert run("key", "--scenario", scenario, "--state", layout.folder).exit_code == 0
    assert [layout.camera_key(CameraId(f"site/{name}")).generation for name in ("door", "gate")] == [2, 0]
