"""Frames of a camera in quarantine: found by name, sealed, or plain from an earlier release."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import fsspec  # type: ignore[import-untyped]  # it ships no types
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from consumers.console.data.quarantined import copy_flagged, frame_of, newest_flagged
from consumers.console.jobs.quarantine_copies import FOLDER, QuarantineCopies
from consumers.console.pages.camera import flagged_frames
from consumers.database.recorded import RecorderDatabase
from consumers.evidence.quarantine import Quarantine
from consumers.recorder.purge import purge
from consumers.records.batch import frame_row
from consumers.settings import Bounds
from schemas.errors import ConfigError
from schemas.evidence.flagged_pictures import open_flagged
from schemas.keys.keys import KeyRing
from tests.consumers.console_rig import CONSOLE_KEYS, ConsoleRig
from tests.consumers.recorder_rig import BOOT, CAMERA, ON_POSTGRESQL, PNG, RECORDER_KEYS, MakeRig, Rig, verdict

NEIGHBOURS = (f"{CAMERA}0", f"{CAMERA}-2", f"{CAMERA[:-1]}_", "north/gate")
"""Cameras whose names have the same prefix as `CAMERA`, or match it as a pattern."""
JOB = KeyRing(b"the secret of one job").previews
OTHERS = KeyRing(b"the secret of another fleet")
COLLATION = "ALTER TABLE quarantine ALTER COLUMN name TYPE text COLLATE {}"


def name_of(seq: int) -> str:
    return f"{CAMERA}/{BOOT:016x}-{seq}"


def copy_frames(rig: Rig, folder: Path, keys: KeyRing = CONSOLE_KEYS) -> int:
    """Copy as a repair does. Return the number of frames."""
    url = f"file://{rig.folder}/quarantine"
    with rig.engine.begin() as connection:
        names = newest_flagged(connection, CAMERA)
    return copy_flagged(names, url, keys, folder, JOB, lambda: False)


def names_and_copies(rig: Rig, folder: Path) -> tuple[list[str], int]:
    """Return the names on a camera's page, and the number of frames that a repair copies."""
    with rig.engine.begin() as connection:
        shown = [name for name, _ in flagged_frames(connection, CAMERA)]
    return shown, copy_frames(rig, folder)


def read_copy(folder: Path, seq: int) -> bytes:
    """Return a frame of a job's copy."""
    return open_flagged((folder / f"{name_of(seq)}.png.sealed").read_bytes(), name_of(seq), JOB)


def make_plain(rig: Rig, seq: int) -> None:
    """Replace the file of a frame by one of an earlier release."""
    sealed = rig.folder / "quarantine" / f"{name_of(seq)}.png.sealed"
    sealed.unlink()
    sealed.with_name(sealed.name.removesuffix(".sealed")).write_bytes(PNG)


def damage(rig: Rig, seq: int) -> None:
    """Change a byte of a frame's file."""
    file = rig.folder / "quarantine" / f"{name_of(seq)}.png.sealed"
    file.write_bytes(file.read_bytes()[:-1] + b"?")


def test_a_camera_has_its_own_frames_and_none_of_its_neighbours(rig: Rig, tmp_path: Path) -> None:
    for camera in (CAMERA, *NEIGHBOURS):
        rig.verdicts([verdict(1, flagged=True)], camera)
    assert names_and_copies(rig, tmp_path / "copied") == ([name_of(1)], 1)
    assert read_copy(tmp_path / "copied", 1) == PNG


@pytest.mark.parametrize("url", ["", "memory://sealed-frames"])
def test_pictures_are_stored_encrypted_and_read_by_recorder_and_console(rig: Rig, url: str) -> None:
    url = url or str(rig.folder / "quarantine")
    writer = Quarantine(url, rig.engine, RECORDER_KEYS.previews)
    writer.write(frame_row((CAMERA, BOOT, 1), verdict(1), 1), PNG)
    files, root = fsspec.core.url_to_fs(url)
    stored = [files.cat_file(path) for path in files.find(root)]
    assert len(stored) == 2
    assert not [content for content in stored if b"PNG" in content or PNG[20:60] in content]
    reader = Quarantine(url, rig.engine, RECORDER_KEYS.previews)  # a new instance, without pictures in memory
    assert reader.read((CAMERA, BOOT, 1)) == frame_of(url, name_of(1), CONSOLE_KEYS) == PNG


def test_frames_of_an_earlier_release_are_read_copied_and_purged(make_rig: MakeRig, tmp_path: Path) -> None:
    rig = make_rig()
    rig.verdicts([verdict(seq, flagged=True) for seq in (1, 2)])
    make_plain(rig, 1)
    assert [rig.store.quarantine.read((CAMERA, BOOT, seq)) for seq in (1, 2)] == [PNG, PNG]
    assert frame_of(str(rig.folder / "quarantine"), name_of(1), OTHERS) == PNG
    assert copy_frames(rig, tmp_path / "copied") == 2
    assert not list((tmp_path / "copied").rglob("*.png"))
    assert [read_copy(tmp_path / "copied", seq) for seq in (1, 2)] == [PNG, PNG]
    while purge(rig.store, Bounds(quarantine_bytes=0)):
        pass
    assert rig.count("quarantine") == 0
    assert not list((rig.folder / "quarantine").rglob("*.*"))


def test_a_damaged_frame_is_not_shown_and_left_out_of_a_copy(
    console: ConsoleRig, recorder: Rig, tmp_path: Path
) -> None:
    recorder.verdicts([verdict(seq, flagged=True) for seq in (1, 2)])
    damage(recorder, 1)
    with capture_logs() as logs:
        answers = [console.browser().get(f"/quarantine/{name_of(seq)}.png") for seq in (1, 2)]
        assert recorder.store.quarantine.read((CAMERA, BOOT, 1)) == b""
    assert [answer.status_code for answer in answers] == [404, 200]
    assert [(line["event"], line["name"]) for line in logs] == [("flagged_frame_not_opened", name_of(1))] * 2
    assert copy_frames(recorder, tmp_path / "copied") == 1
    assert read_copy(tmp_path / "copied", 2) == PNG


def test_a_frame_that_was_purged_after_the_names_were_read_is_left_out_of_a_copy(recorder: Rig, tmp_path: Path) -> None:
    recorder.verdicts([verdict(1, flagged=True)])
    names, url = [name_of(2), name_of(1)], f"file://{recorder.folder}/quarantine"
    assert copy_flagged(names, url, CONSOLE_KEYS, tmp_path / "copied", JOB, lambda: False) == 1
    assert read_copy(tmp_path / "copied", 1) == PNG


def test_a_console_of_another_fleet_shows_and_copies_nothing(rig: Rig, tmp_path: Path) -> None:
    rig.verdicts([verdict(1, flagged=True)])
    assert frame_of(str(rig.folder / "quarantine"), name_of(1), OTHERS) == b""
    refused = pytest.raises(ConfigError, match=f"expected frames of {CAMERA} that this console opens, got none")
    with closing(RecorderDatabase(rig.url)) as recorded, refused:
        copies = QuarantineCopies(recorded, f"file://{rig.folder}/quarantine", OTHERS)
        copies.copy("a job", CAMERA, tmp_path / "job", lambda: False)
    assert not (tmp_path / "job" / FOLDER).exists()


@ON_POSTGRESQL
def test_frames_of_a_camera_are_found_when_the_database_sorts_names_without_slashes(rig: Rig, tmp_path: Path) -> None:
    # Locales of the C library sort like this.
    with rig.engine.begin() as connection:
        connection.execute(
            text("CREATE COLLATION IF NOT EXISTS slashless (provider = icu, locale = 'en-u-ka-shifted')")
        )
        connection.execute(text(COLLATION.format("slashless")))
    try:
        rig.verdicts([verdict(1, flagged=True)])
        assert names_and_copies(rig, tmp_path / "copied") == ([name_of(1)], 1)
    finally:
        with rig.engine.begin() as connection:
            connection.execute(text(COLLATION.format('"default"')))


def test_frames_are_purged_from_a_store_with_an_error_of_its_own_for_a_missing_file(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sealed frame has no plain file, and FTP answers the deletion of a missing file like a forbidden one.
    rig.verdicts([verdict(1, flagged=True)])
    files = rig.store.quarantine._files
    remove = files.rm_file

    def remove_existing(path: str) -> None:
        if not files.exists(path):
            raise OSError("550 The system cannot find the file specified.")
        remove(path)

    monkeypatch.setattr(files, "rm_file", remove_existing)
    while purge(rig.store, Bounds(quarantine_bytes=0)):
        pass
    assert rig.count("quarantine") == 0
    assert not list((rig.folder / "quarantine").rglob("*.*"))
