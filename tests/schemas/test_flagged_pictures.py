"""Sealed pictures of quarantined frames: bound to their frame, their kind and their fleet, or to one job."""

from __future__ import annotations

import pytest

from schemas.errors import MalformedError, SecretError
from schemas.evidence.flagged_pictures import open_flagged, seal_flagged
from schemas.identity import CameraId, Identity
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots

FLEET = Roots.of_fleet(b"a fleet secret for sealed frames")
BOX = KeyRing(FLEET.of(Role.RECORDER)).previews
NAME = "lab/door/00000000000000ff-7"
PNG = b"a PNG of a door"


def test_a_frame_is_opened_by_console_and_processor_of_its_fleet_and_shows_nothing_to_others() -> None:
    sealed = seal_flagged(PNG, NAME, BOX)
    assert PNG not in sealed
    for role in (Role.CONSOLE, Role.PROCESSOR):
        assert open_flagged(sealed, NAME, KeyRing(FLEET.of(role)).previews) == PNG
    other = KeyRing(b"the secret of another fleet").previews
    with pytest.raises(MalformedError, match="expected the sealed quarantine of lab/door/00000000000000ff/7"):
        open_flagged(sealed, NAME, other)


@pytest.mark.parametrize("name", ["lab/gate/00000000000000ff-7", "lab/door/00000000000000fe-7", f"{NAME}0"])
def test_a_file_in_the_place_of_another_frame_is_rejected(name: str) -> None:
    with pytest.raises(MalformedError):
        open_flagged(seal_flagged(PNG, NAME, BOX), name, BOX)


@pytest.mark.parametrize("at", [0, 11, 12, -1])
def test_a_changed_byte_is_rejected(at: int) -> None:
    damaged = bytearray(seal_flagged(PNG, NAME, BOX))
    damaged[at] ^= 1
    with pytest.raises(MalformedError):
        open_flagged(bytes(damaged), NAME, BOX)


@pytest.mark.parametrize("length", [0, 5, 12, 20])
def test_a_file_that_was_cut_off_is_rejected(length: int) -> None:
    with pytest.raises(MalformedError):
        open_flagged(seal_flagged(PNG, NAME, BOX)[:length], NAME, BOX)


def test_a_frame_to_label_is_no_quarantined_one() -> None:
    lesson = BOX.seal(PNG, Identity(CameraId("lab/door"), 0xFF, 7), "lesson")
    with pytest.raises(MalformedError):
        open_flagged(lesson, NAME, BOX)


@pytest.mark.parametrize("name", ["00000", "door/00000000000000ff-7", "lab/door/ff-7", "lab/door/00000000000000ff-x"])
def test_a_name_of_no_frame_is_rejected(name: str) -> None:
    with pytest.raises(MalformedError, match="expected the name site/camera/boot-number"):
        seal_flagged(PNG, name, BOX)


def test_the_keys_of_a_job_open_its_own_copy_alone() -> None:
    console = KeyRing(FLEET.of(Role.CONSOLE))
    first, again, second = (KeyRing(console.of_job(job)).previews for job in ("a1", "a1", "b2"))
    copied = seal_flagged(PNG, NAME, first)
    assert open_flagged(copied, NAME, again) == PNG
    for other in (second, BOX):
        with pytest.raises(MalformedError):
            open_flagged(copied, NAME, other)
    with pytest.raises(MalformedError):
        open_flagged(seal_flagged(PNG, NAME, BOX), NAME, first)
    assert Roots.from_export(console.of_job("a1").export(), Role.CONSOLE).export() == console.of_job("a1").export()


def test_a_role_without_the_key_to_pictures_has_no_keys_for_jobs() -> None:
    with pytest.raises(SecretError):
        KeyRing(FLEET.of(Role.BRIDGE)).of_job("a1")
