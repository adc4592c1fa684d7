"""PSNR of pictures in a folder: reading, inpainting, and skipped files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from skimage.metrics import peak_signal_noise_ratio

from lab.restoration.psnr import biharmonic, picture_files, psnr_db, psnr_rows, read_picture, summary
from schemas.errors import ConfigError


def test_psnr_agrees_with_scikit_image() -> None:
    rng = np.random.default_rng(0)
    clean, found = rng.random((2, 3, 8, 9)), rng.random((2, 3, 8, 9))
    pairs = zip(clean, found, strict=True)
    expected = [peak_signal_noise_ratio(c, f, data_range=1) for c, f in pairs]  # type: ignore[no-untyped-call]  # scikit-image annotates little
    np.testing.assert_allclose(psnr_db(torch.from_numpy(found), torch.from_numpy(clean)), expected)


def test_equal_pictures_have_a_finite_psnr() -> None:
    frames = torch.rand(2, 1, 4, 4)
    assert psnr_db(frames, frames).tolist() == [100.0, 100.0]


RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([RAMP, RAMP + 60, RAMP + 120], axis=2)


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.fromarray(RAMP), "grey.png", RAMP[..., None]),
        (Image.fromarray(COLOUR), "colour.png", COLOUR),
        (Image.fromarray(COLOUR).convert("RGBA"), "opaque.png", COLOUR),
        (Image.fromarray(COLOUR).quantize(48), "palette.gif", COLOUR),
        (Image.fromarray(RAMP > 20), "bits.png", np.where(RAMP > 20, 255, 0)[..., None]),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), "deep.png", RAMP[..., None]),
        (Image.fromarray(RAMP.astype(np.int32)), "small.tif", RAMP[..., None]),
        (Image.fromarray(COLOUR).convert("CMYK"), "print.tif", COLOUR),
    ],
)
def test_every_kind_of_picture_is_converted_to_eight_bits(
    tmp_path: Path, image: Image.Image, name: str, expected: np.ndarray
) -> None:
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_picture(tmp_path / name), expected)


def test_transparent_pixels_are_put_on_white(tmp_path: Path) -> None:
    alpha = np.full((6, 8), 255, np.uint8)
    alpha[0] = 0
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "glass.png")
    found = read_picture(tmp_path / "glass.png")
    np.testing.assert_array_equal(found[0], 255)
    np.testing.assert_array_equal(found[1:], COLOUR[1:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_rotated_by_its_exif_orientation(tmp_path: Path, orientation: int) -> None:
    turns = {3: COLOUR[::-1, ::-1], 6: np.rot90(COLOUR, 1), 8: np.rot90(COLOUR, -1), 2: COLOUR[:, ::-1]}
    turns |= {1: COLOUR, 4: COLOUR[::-1], 5: COLOUR.transpose(1, 0, 2), 7: COLOUR[::-1, ::-1].transpose(1, 0, 2)}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.ascontiguousarray(turns[orientation])).save(tmp_path / "phone.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "phone.png"), COLOUR)


@pytest.mark.parametrize("exif", [b"MM\x00*\x00\x00\x00\x08", b"no EXIF at all"])
def test_a_picture_with_damaged_exif_data_is_read(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "damaged.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "damaged.png"), COLOUR)


def test_a_grey_picture_of_floats_is_scaled_by_its_range(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32) / 7 - 3).save(tmp_path / "float.tif")
    found = read_picture(tmp_path / "float.tif")
    assert (found.min(), found.max()) == (0, 255)


def test_biharmonic_inpainting_continues_a_plane_and_keeps_kept_pixels() -> None:
    plane = torch.arange(144, dtype=torch.float32).view(1, 1, 12, 12) / 200
    kept = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.2
    kept[..., [0, 1, -2, -1], :] = True
    kept[..., [0, 1, -2, -1]] = True
    torch.testing.assert_close(biharmonic(plane.masked_fill(~kept, 0), kept), plane, atol=1e-5, rtol=0)


def test_an_unreadable_file_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    Image.fromarray(np.tile(COLOUR, (4, 3, 1))).save(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("no picture")
    Image.fromarray(RAMP).save(tmp_path / "c.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:50])
    (tmp_path / ".hidden").write_text("")
    Image.fromarray(np.tile(COLOUR, (4, 3, 1))).save(tmp_path / "d.dds")
    damaged = bytearray((tmp_path / "d.dds").read_bytes())
    damaged[80] = 0x19  # flags of no known pixel format
    (tmp_path / "d.dds").write_bytes(damaged)
    skipped: list[str] = []
    rows = list(psnr_rows(picture_files(tmp_path), 0.25, lambda name, why: skipped.append(name)))
    assert skipped == ["a.txt", "c.png", "d.dds"]
    (row,) = rows
    assert (row.file, row.height, row.width, row.channels) == ("b.png", 24, 24, 3)
    assert row.psnr_db > row.paper_psnr_db > 10
    found = summary(rows * 2)
    assert found["psnr_db"] == row.psnr_db
    assert found["seconds"] == pytest.approx(2 * row.seconds)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (17, 40)])
def test_small_pictures_and_odd_sizes_are_measured_or_skipped(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(90, 110, (*size, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "small.png")
    skipped: list[str] = []
    rows = list(psnr_rows([tmp_path / "small.png"], 0.5, lambda name, why: skipped.append(why), seed=3))
    assert len(rows) + len(skipped) == 1
    assert all(np.isfinite([row.psnr_db, row.paper_psnr_db, row.biharmonic_psnr_db]).all() for row in rows)


def test_a_folder_without_a_readable_picture_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got no file"):
        picture_files(tmp_path)
    with pytest.raises(ConfigError, match="pictures: expected a folder"):
        picture_files(tmp_path / "absent")
    with pytest.raises(ConfigError, match="at least one readable"):
        summary([])
