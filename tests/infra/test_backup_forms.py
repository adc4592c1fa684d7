"""Backups in another format or with damage, and failures while files are saved."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from infra.cameras.rates import allow_rate
from infra.state_folder import Layout, backup
from infra.state_folder.backup import write_backup
from infra.state_folder.backup_format import CHECKSUMS, MANIFEST, HashingStream
from infra.state_folder.restore import restore_backup
from infra.up.interrupts import InterruptedStart, Interrupts
from schemas.errors import ConfigError, StateError
from schemas.identity import CameraId
from tests.infra.test_backup import fill_state


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Write a backup without a passphrase and return its file."""
    return Path(write_backup(fill_state(Layout(tmp_path / "state")), str(tmp_path / "to"), "1")[0])


def rewrite(saved: Path, name: str, change: Callable[[bytes], bytes | None]) -> None:
    """Write a backup again with one member changed, or without it if `change` returns None."""
    members = []
    with tarfile.open(saved) as tar:
        for info in tar:
            opened = tar.extractfile(info)
            assert opened is not None
            members.append((info, opened.read()))
    with tarfile.open(saved, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            changed = change(data) if info.name == name else data
            if changed is not None:
                info.size = len(changed)
                tar.addfile(info, io.BytesIO(changed))


def error_of_restore(saved: Path, folder: Path) -> str:
    """Return the error line of a restore, and assert that the folder stays empty."""
    folder.mkdir()
    with pytest.raises(StateError) as caught:
        restore_backup(Layout(folder), str(saved))
    assert list(folder.iterdir()) == []
    (line,) = str(caught.value).splitlines()
    return line


def with_later_format(data: bytes) -> bytes:
    return json.dumps(json.loads(data) | {"format": 2, "version": "9.0"}).encode()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (MANIFEST, with_later_format, "the backup: expected format 1, got 2. Restore it with release 9.0."),
        (MANIFEST, lambda data: b"{}", "got a damaged file (manifest.json: 'format')"),
        (MANIFEST, lambda data: data.replace(b'made_ms": ', b'made_ms": 1'), "got a damaged file (a wrong checksum)"),
        (MANIFEST, lambda data: data.replace(b"fleet.secret", b"fleet"), "that manifest.json does not announce"),
        (MANIFEST, lambda data: None, "got a damaged file (no manifest.json)"),
        (CHECKSUMS, lambda data: None, "got a damaged file (the end is missing)"),
        (CHECKSUMS, lambda data: b"{}", "got a damaged file (a wrong checksum)"),
        (CHECKSUMS, lambda data: data[:-1], "got a damaged file ("),
        ("state/settings/recorder.toml", lambda data: data + b"x", "got a damaged file (a wrong checksum)"),
        ("state/settings/recorder.toml", lambda data: None, "got a damaged file (a wrong checksum)"),
    ],
)
def test_a_damaged_backup_or_another_format_is_one_error_line_and_restores_nothing(
    saved: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes | None], words: str
) -> None:
    rewrite(saved, name, change)
    assert words in error_of_restore(saved, tmp_path / "fresh")


def test_a_member_outside_the_folder_is_rejected(saved: Path, tmp_path: Path) -> None:
    with tarfile.open(saved, "a") as tar:
        tar.addfile(tarfile.TarInfo("state/../../outside"))
    assert "a member 'state/../../outside'" in error_of_restore(saved, tmp_path / "fresh")
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("name", ["state/lock", "state/", "console", "others"])
def test_a_member_that_the_manifest_does_not_announce_is_rejected(tmp_path: Path, name: str) -> None:
    layout = fill_state(Layout(tmp_path / "state"))
    (layout.folder / "console.sqlite").unlink(missing_ok=True)
    saved = Path(write_backup(layout, str(tmp_path / "to"), "1")[0])
    with tarfile.open(saved, "a") as tar:
        tar.addfile(tarfile.TarInfo(name))
    assert f"a member {name!r} that" in error_of_restore(saved, tmp_path / "fresh")


def test_with_a_passphrase_a_backup_that_is_not_encrypted_is_rejected(saved: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    with pytest.raises(ConfigError, match="--passphrase-file: expected an encrypted backup, got"):
        restore_backup(Layout(fresh), str(saved), passphrase="a long passphrase")
    assert not fresh.exists()


def test_a_file_that_shrinks_while_it_is_saved_leaves_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = fill_state(Layout(tmp_path / "state"))
    read = HashingStream.read

    def shortened(self: HashingStream, size: int = -1) -> bytes:
        return read(self, size)[:-1]

    monkeypatch.setattr(HashingStream, "read", shortened)
    with pytest.raises(StateError, match=r"^--state: expected .* to keep its length, got a shorter one\. Try again\.$"):
        write_backup(layout, str(tmp_path / "to"), "1")
    assert not list((tmp_path / "to").glob("*.backup"))


def test_a_disk_that_fails_while_a_file_is_saved_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = fill_state(Layout(tmp_path / "state"))

    def failing(self: HashingStream, size: int = -1) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(HashingStream, "read", failing)
    with pytest.raises(StateError, match=r"^--state: expected a readable .*, got .*Input/output error\. Check"):
        write_backup(layout, str(tmp_path / "to"), "1")


def test_a_start_ends_at_the_next_step_after_an_interrupt() -> None:
    interrupts = Interrupts()
    interrupts.stop_here()
    interrupts(2, None)
    with pytest.raises(InterruptedStart, match="stopped before the cameras started"):
        interrupts.stop_here()


def test_a_backup_removes_what_a_killed_one_left_in_its_folder(saved: Path, tmp_path: Path) -> None:
    killed, other = saved.with_name(f".{saved.name}.12.34.new"), saved.with_name(".notes.12.34.new")
    for file in (killed, other):
        file.write_bytes(b"half a file")
        os.utime(file, (1, 1))
    write_backup(Layout(tmp_path / "state"), str(saved.parent), "1")
    assert not killed.exists()
    assert other.exists()
    assert len(list(saved.parent.glob("*.backup"))) == 2


def test_backups_of_two_systems_into_one_folder_do_not_remove_each_other_s_files(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fill_state(Layout(tmp_path / "other"))
    write, nested = backup._write_tar, []

    def write_and_let_another_write(output: IO[bytes], layout: Layout, *arguments: Any) -> None:
        write(output, layout, *arguments)
        if layout.folder.name == "state":
            nested.append(Path(write_backup(other, str(saved.parent), "1")[0]))

    monkeypatch.setattr(backup, "_write_tar", write_and_let_another_write)
    place = Path(write_backup(Layout(tmp_path / "state"), str(saved.parent), "1")[0])
    assert {*nested, place, saved} == set(saved.parent.iterdir())
    assert len(nested) == 1


def test_a_backup_leaves_out_the_reports_starts_and_locks_of_cameras_and_is_restored_next_to_them(
    tmp_path: Path,
) -> None:
    layout = fill_state(Layout(tmp_path / "state"))
    left_out = {"cameras.json", "cameras-2.json", "camera-rates.lock", "fleet.json", "fleet-2.json"}
    for folder in (layout.folder, tmp_path / "former"):
        folder.mkdir(exist_ok=True)
        for name in left_out:
            (folder / name).write_text("{}")
    allow_rate(layout, CameraId("site/door"))
    place, written = write_backup(layout, str(tmp_path / "to"), "1")
    assert left_out.isdisjoint(written.entries)
    restored = Layout(tmp_path / "former")
    restore_backup(restored, place)
    assert restored.camera_rates.read_bytes() == layout.camera_rates.read_bytes()
