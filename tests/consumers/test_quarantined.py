"""A camera's frames in quarantine, found by their names."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from consumers.console.data.quarantined import copy_flagged
from consumers.console.pages.camera import flagged_frames
from tests.consumers.recorder_rig import BOOT, CAMERA, ON_POSTGRESQL, PNG, Rig, verdict

NEIGHBOURS = (f"{CAMERA}0", f"{CAMERA}-2", f"{CAMERA[:-1]}_", "north/gate")
"""Cameras whose names begin as the one that is asked for, or match it as a pattern."""


def found(rig: Rig, folder: Path) -> tuple[list[str], int]:
    """The names on a camera's page, and the number of frames that a repair copies."""
    names = [name for name, _ in flagged_frames(rig.engine, CAMERA)]
    return names, copy_flagged(rig.engine, f"file://{rig.folder}/quarantine", CAMERA, folder, lambda: False)


def test_a_camera_has_its_own_frames_and_none_of_its_neighbours(rig: Rig, tmp_path: Path) -> None:
    for camera in (CAMERA, *NEIGHBOURS):
        rig.verdicts([verdict(1, flagged=True)], camera)
    assert found(rig, tmp_path / "copied") == ([f"{CAMERA}/{BOOT:016x}-1"], 1)
    assert (tmp_path / "copied" / "00000.png").read_bytes() == PNG


@ON_POSTGRESQL
def test_a_camera_has_its_frames_where_a_database_orders_names_without_their_slashes(rig: Rig, tmp_path: Path) -> None:
    # As the locales of the C library do.
    with rig.engine.begin() as connection:
        connection.execute(
            text("CREATE COLLATION IF NOT EXISTS slashless (provider = icu, locale = 'en-u-ka-shifted')")
        )
        connection.execute(text("ALTER TABLE quarantine ALTER COLUMN name TYPE text COLLATE slashless"))
    rig.verdicts([verdict(1, flagged=True)])
    assert found(rig, tmp_path / "copied") == ([f"{CAMERA}/{BOOT:016x}-1"], 1)
