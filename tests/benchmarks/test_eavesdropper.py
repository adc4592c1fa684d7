"""The eavesdropper, who reads unencrypted frames and learns nothing from encrypted ones."""

from __future__ import annotations

import io
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from benchmarks.security import coded_probes
from benchmarks.security.eavesdropper.__main__ import attacked, heard
from benchmarks.security.eavesdropper.disks import Logged, images_in, lie_in
from benchmarks.security.eavesdropper.lengths import right_guesses
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.messages.frame import Encoding, encode_frame, parse_frame

CAMERA = CameraId("seen/one")
FLEET = Roots.of_fleet(b"a fleet secret of tests")
KEYS = KeyRing(FLEET)


def logged(count: int) -> list[Logged]:
    """Return frames of smooth pictures, as the eavesdropper reads them from Kafka's log."""
    chance = np.random.default_rng(1)
    found = []
    for seq in range(count):
        coarse = chance.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
        message = encode_frame(KEYS.current(CAMERA), 1, seq, 1, picture, Encoding(16))
        found.append(Logged(parse_frame(message), picture))
    return found


def test_the_attacks_reveal_open_frames_and_only_the_mean_picture_of_encrypted_ones() -> None:
    frames, bridge = logged(80), FLEET.of(Role.BRIDGE)
    sealed = attacked(heard(frames, None), CAMERA, bridge, KEYS, 16)
    opened = attacked(heard(frames, KEYS.current(CAMERA)), CAMERA, bridge, KEYS, 16)
    assert opened["best_over_mean_db"] > 3
    assert sealed["best_over_mean_db"] < 0.1
    assert sealed["mean_picture_db"] == opened["mean_picture_db"]


def test_the_search_of_a_disk_finds_images_and_pieces() -> None:
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 60)).save(data, "JPEG")
    disk = b"something before" + data.getvalue() + b"and after \xff\xd8\xff no image"
    assert [image.size for image in images_in(disk)] == [(16, 16)]
    assert lie_in(disk, [b"something before", b"nowhere"]) == 1


@pytest.mark.parametrize(
    ("sizes", "share"), [([5, 6, 7, 8], 1.0), ([8, 7, 6, 5], 0.0), ([9, 9, 9, 9], 0.5), ([5, 7, 6, 8], 0.75)]
)
def test_a_guess_from_lengths_is_right_if_more_motion_needs_more_bytes(sizes: list[int], share: float) -> None:
    assert right_guesses(sizes, [0.1, 0.2, 0.3, 0.4]) == share


def test_a_coded_probe_is_compared_with_the_same_picture_without_a_codec() -> None:
    rows = coded_probes.measured(128, 2)
    assert [(row.bundle, row.what) for row in rows] == [
        ("scene-sticker", "false alarms"), ("scene-sticker", "misses"), ("scene", "false alarms"),
    ]  # fmt: skip
    assert rows[0].frames == 2
    assert rows[0].psnr_db > 25
    assert rows[0].over_rgb.low < rows[0].over_rgb.value < rows[0].over_rgb.high
    shown = coded_probes.page({"command": "x", "rows": [asdict(row) for row in rows]})
    assert "| `scene-sticker` | 128 | 2 | misses |" in shown
