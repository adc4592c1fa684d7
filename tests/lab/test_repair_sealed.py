"""`pointillist lab repair` on sealed frames of a quarantine: with a state folder, a secret, and without the key."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.state_folder import Layout
from lab.repair.inputs import read_quarantine
from schemas.evidence.flagged_pictures import seal_flagged
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from tests.lab.backdoored_network import backdoored_bundle, pictures, stamped, write_backdoored_bundle
from tests.lab.colour_classifier import save_pictures
from tests.lab.conftest import Command

SECRET = b"the secret of a fleet with sealed frames"
VARIABLE = "POINTILLIST_ROLE_SECRET"
CAMERA = "quarantine/lab/door"


def name_of(seq: int) -> str:
    return f"lab/door/{0x77:016x}-{seq}"


def write_quarantine(folder: Path, roots: Roots, frames: int = 12) -> Path:
    """Write a quarantine with sealed frames of one camera."""
    flagged = stamped(pictures(60, seed=2).take(np.arange(frames)))
    box = KeyRing(roots).previews
    (folder / CAMERA).mkdir(parents=True)
    for seq, picture in enumerate(flagged.images):
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "PNG")
        (folder / "quarantine" / f"{name_of(seq)}.png.sealed").write_bytes(
            seal_flagged(png.getvalue(), name_of(seq), box)
        )
        (folder / "quarantine" / f"{name_of(seq)}.json").write_text("{}")
    return folder / "quarantine"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a backdoored bundle, clean pictures, a state folder and a quarantine that its recorder has sealed."""
    for name in (VARIABLE, f"{VARIABLE}_FILE", "POINTILLIST_FLEET_SECRET", "POINTILLIST_FLEET_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
    write_backdoored_bundle(tmp_path / "bundle")
    save_pictures(tmp_path / "clean.npz", pictures(20, seed=1))
    Layout(tmp_path / "state").fleet_secret(SECRET)
    write_quarantine(tmp_path, Roots.of_fleet(SECRET).of(Role.RECORDER))
    return tmp_path


def repaired(folder: Path, lab: Command, *more: object, quarantine: Path | None = None) -> str:
    """Return the error line of a repair, which `printed` describes."""
    return printed(folder, lab, *more, quarantine=quarantine)[-1]


def printed(folder: Path, lab: Command, *more: object, quarantine: Path | None = None) -> list[str]:
    """Return the lines about skipped frames and the error of a repair.

    Its clean pictures are too few, which is checked after the quarantine is read.
    """
    given = (
        "repair", "--bundle", folder / "bundle", "--clean", folder / "clean.npz", "--quarantine",
        quarantine or folder / "quarantine", "--out", folder / "out", *more,
    )  # fmt: skip
    ended = lab(*map(str, given))
    assert ended.code == 2, ended.err
    return [line for line in ended.err.splitlines() if line.startswith(("skipped ", "error: "))]


OPENED = "--clean: expected at least"
"""The first refusal after the quarantine was read."""


def test_a_state_folder_opens_the_quarantine_of_its_fleet(folder: Path, lab: Command) -> None:
    assert OPENED in repaired(folder, lab, "--state", folder / "state")


@pytest.mark.parametrize("role", [Role.CONSOLE, None])
def test_a_secret_in_the_environment_opens_it(
    folder: Path, lab: Command, monkeypatch: pytest.MonkeyPatch, role: Role | None
) -> None:
    if role is not None:
        monkeypatch.setenv(VARIABLE, Roots.of_fleet(SECRET).of(role).export())
    else:
        monkeypatch.setenv("POINTILLIST_FLEET_SECRET", SECRET.hex())
    assert OPENED in repaired(folder, lab)


def test_the_secret_of_a_job_opens_the_copy_of_the_job_and_not_the_quarantine(
    folder: Path, lab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = KeyRing(Roots.of_fleet(SECRET).of(Role.CONSOLE)).of_job("ab" * 8)
    monkeypatch.setenv(VARIABLE, job.export())
    copy = write_quarantine(folder / "runs", job)
    assert OPENED in repaired(folder, lab, quarantine=copy)
    assert "expected a frame that this secret opens" in repaired(folder, lab)


def test_without_a_key_one_line_names_the_options(folder: Path, lab: Command) -> None:
    assert repaired(folder, lab) == (
        "error: --state is missing: the frames of --quarantine are sealed. Give the state folder of their fleet, or "
        "set POINTILLIST_ROLE_SECRET(_FILE) to the secret of the role console."
    )
    (folder / "empty").mkdir()
    assert "the secret of the role console is missing" in repaired(folder, lab, "--state", folder / "empty")
    assert "--state: expected a state folder" in repaired(folder, lab, "--state", folder / "none")


def test_another_fleets_secret_and_moved_files_are_one_line_with_the_first_file(
    folder: Path, lab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder / "quarantine" / f"{name_of(0)}.png.sealed"
    monkeypatch.setenv("POINTILLIST_FLEET_SECRET", "7c" * 32)
    assert f"{first}: expected a frame that this secret opens, got one" in repaired(folder, lab)
    shutil.move(folder / CAMERA, folder / "quarantine" / "lab" / "gate")
    assert "/lab/gate/" in repaired(folder, lab, "--state", folder / "state")


def test_frames_that_cannot_be_read_are_left_out_with_a_line_each(folder: Path, lab: Command) -> None:
    place, box = folder / "quarantine", KeyRing(SECRET).previews
    whole = read_quarantine(place, backdoored_bundle(), lambda: box)
    first = place / f"{name_of(0)}.png.sealed"
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    (place / f"{name_of(11)}.png.sealed").write_bytes(seal_flagged(b"no PNG", name_of(11), box))
    skipped: dict[str, str] = {}
    read = read_quarantine(place, backdoored_bundle(), lambda: box, skipped.__setitem__)
    left = [index for index, seq in enumerate(sorted(map(str, range(12)))) if seq not in {"0", "11"}]
    assert (read == whole[left]).all()
    assert [why[:24] for why in skipped.values()] == ["expected a frame that th", "expected a PNG picture, "]
    *lines, error = printed(folder, lab, "--state", folder / "state")
    assert lines == [f"skipped {file}: {why}" for file, why in skipped.items()]
    assert OPENED in error


def test_sealed_and_plain_frames_are_read_together_and_kept_files_left_out(folder: Path) -> None:
    box = KeyRing(SECRET).previews
    place = folder / "quarantine"
    whole = read_quarantine(place, backdoored_bundle(), lambda: box)
    assert (len(whole), read_quarantine(folder / CAMERA, backdoored_bundle(), lambda: box).tobytes()) == (
        12,
        whole.tobytes(),
    )
    plain = Image.fromarray(stamped(pictures(60, seed=2)).images[3])
    plain.save(place / f"{name_of(3)}.png")  # written before an upgrade, and again after it
    (place / f"{name_of(4)}.png.sealed").unlink()
    plain.save(place / f"{name_of(4)}.png")
    for kept in (f"teach/{name_of(5)}.sealed", "clips/lab/door/00000000000007.sealed"):
        (place / kept).parent.mkdir(parents=True, exist_ok=True)
        (place / kept).write_bytes(b"sealed otherwise")
    read = read_quarantine(place, backdoored_bundle(), lambda: box)
    expected = whole.copy()
    expected[[index for index, seq in enumerate(sorted(map(str, range(12)))) if seq == "4"]] = np.asarray(plain)
    assert (read == expected).all()
