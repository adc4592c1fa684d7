"""The lock around a fleet's identities, which every change of them holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from select import select

import pytest
import yaml

from infra.cameras.identity import issued_identity
from infra.state_folder import Layout, identity_lock
from infra.state_folder.identity_lock import changing_identities
from infra.up.identities import prepare_identities
from infra.up.settings import UpSettings
from schemas.identity import CameraId
from schemas.keys.signers import Signer
from schemas.runtime import atomic_file
from tests.infra.command_line import run
from tests.infra.test_pki import DOOR

ROOT = Path(__file__).parents[2]
OTHER, OURS = CameraId("site/other"), CameraId("site/ours")
SCENARIO = {"site": "site", "cameras": [{"name": "cam-{index}", "count": 2, "source": {"kind": "scene"}}]}


class CheckedWrites:
    """The replaced files of a state folder. Each replacement asserts that this process holds its lock."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: set[str] = set()
        self._state = state.resolve()
        self._write = atomic_file.replacing
        monkeypatch.setattr(atomic_file, "replacing", self.replacing)

    def replacing(self, path: Path, *, private: bool = False) -> AbstractContextManager[Path]:
        """Replace the function of the same name in `atomic_file`."""
        return self._replacing(path, private)

    @contextmanager
    def _replacing(self, path: Path, private: bool) -> Iterator[Path]:
        if path.resolve().is_relative_to(self._state):
            name = str(path.resolve().relative_to(self._state))
            assert identity_lock._held.get(self._state), f"{name} is written without the lock"
            self.files.add(name)
        with self._write(path, private=private) as fresh:
            yield fresh


def test_every_command_that_changes_identities_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    layout = Layout(state)
    writes = CheckedWrites(state, monkeypatch)
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    out = ("--out", tmp_path / "out")
    prepare_identities(layout, [OURS], UpSettings())
    for command in (
        ("ca", "init", "--keep", "--scenario", scenario),
        ("ca", "role", "bridge-2"),
        ("ca", "role", "bridge-3", "--days", "0.1"),
        ("ca", "renew"),
        ("enroll", DOOR, *out),
        ("revoke", DOOR),
        ("enroll", DOOR, *out),
        ("rotate", DOOR, *out),
        ("revoke", "--role", "admin"),
        ("key", "--scenario", scenario),
    ):
        done = run(*command, "--state", state)
        assert done.exit_code == 0, (command, done.output, done.exception)
    issued_identity(layout, OTHER)
    layout.trust(Signer.new(), "another")
    assert {"fleet.secret", "generations.json", "signer.key", "trusted-signers", "pki/ca.key"} <= writes.files
    assert {"pki/crl.pem", "pki/revoked.json", "pki/refused", "pki/role-generations.json"} <= writes.files
    assert {"pki/roles/mosquitto/mosquitto.acl", f"keys/{OTHER}.key"} <= writes.files


def test_another_process_waits_until_the_lock_is_free(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from infra.state_folder.identity_lock import changing_identities\n"
        "print('trying', flush=True)\n"
        "with changing_identities(Path(sys.argv[1])): print('locked', flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout is not None
        with changing_identities(tmp_path), changing_identities(tmp_path):
            assert child.stdout.readline() == b"trying\n"
            assert select([child.stdout], [], [], 0.5)[0] == []
        assert child.stdout.readline() == b"locked\n"
    assert child.returncode == 0


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), changing_identities(tmp_path), changing_identities(tmp_path):
        raise ZeroDivisionError
    assert not identity_lock._held
