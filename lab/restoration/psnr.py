"""PSNR of rebuilt pictures, compared with Algorithm 1 and with scikit-image's biharmonic inpainting."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from lab.data import to_frames
from lab.masks import check_drop_ratio, random_masks
from processors.stages.drop import drop
from processors.stages.modes import Mode
from processors.stages.reconstruct import reconstruct
from schemas.errors import ConfigError, first_line
from schemas.limits import MAX_SIDE

LARGEST_PSNR_DB: Final = 100.0
"""The value for infinity: a picture that is identical bit for bit."""

_UNREADABLE: Final = (OSError, ValueError, SyntaxError, EOFError, RuntimeError)
"""The errors of Pillow's decoders for a damaged file. AVIF's raises RuntimeError, DDS's NotImplementedError."""

Fill = Callable[[Tensor, Tensor], Tensor]
"""A function from frames (B, C, H, W) in [0, 1] and their kept mask (B, 1, H, W) to filled frames."""

Skipped = Callable[[str, str], None]
"""A callback that receives the name of a skipped file, and the reason."""


def psnr_db(found: Tensor, clean: Tensor) -> Tensor:
    """Return −10·log10 of the mean squared error of each frame of (B, C, H, W) in [0, 1]: (B,) dB, at most 100.

    The mean is over all pixels of the frame, including the kept ones.
    """
    error = (found.double() - clean.double()).square().mean((1, 2, 3))
    return -10 * error.clamp_min(10 ** (-LARGEST_PSNR_DB / 10)).log10()


def read_picture(file: Path) -> NDArray[np.uint8]:
    """Return a picture file as (H, W, 1 or 3) uint8. If it contains several pictures, the first counts.
    It is turned by its EXIF orientation, as viewers do.

    Grey and black-and-white stay one channel. Palette, CMYK and other colour spaces become RGB. Transparent pictures
    are laid over white. 16-bit and floating grey is scaled to 8 bits: integers by 1/257, floats by their range.
    Integers of 32 bits that are at most 255 stay as they are. Raises ConfigError for files that Pillow cannot read, or
    sides above 8,192.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns about sizes that are rejected below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                if max(opened.size) > MAX_SIDE:
                    raise ConfigError(f"expected sides up to {MAX_SIDE}, got {opened.width}×{opened.height}")
                _turn_upright(opened)
                pixels = np.asarray(_eight_bits(opened))
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = first_line(error)
        raise ConfigError(f"expected a picture that Pillow reads, got: {reason}") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _turn_upright(opened: Image.Image) -> None:
    """Turn a picture in place by its EXIF orientation. Damaged EXIF data is no reason to reject a picture."""
    opened.load()
    with suppress(Exception):  # Pillow's parser may raise anything; the tag is rewritten only after the turn
        ImageOps.exif_transpose(opened, in_place=True)


def _eight_bits(opened: Image.Image) -> Image.Image:
    if opened.mode == "F" or opened.mode.startswith("I"):
        return Image.fromarray(_scaled(np.asarray(opened)))
    if opened.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in opened.info:
        white = Image.new("RGBA", opened.size, "white")
        laid = Image.alpha_composite(white, opened.convert("RGBA"))
        return laid.convert("L" if opened.mode in ("L", "LA", "La", "1") else "RGB")
    return opened.convert("L" if opened.mode in ("1", "L") else "RGB")


def _scaled(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = grey.astype(np.float64)
    if grey.dtype == np.int32 and values.max() <= 255:
        return values.clip(0).astype(np.uint8)
    if np.issubdtype(grey.dtype, np.integer):
        return np.rint(np.clip(values, 0, 65535) / 257).astype(np.uint8)
    if not np.isfinite(values).all():
        raise ValueError("floating grey with NaN or infinity")
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)


@dataclass(frozen=True)
class PsnrRow:
    """One picture: its size, and dB and seconds of each way to fill the dropped pixels."""

    file: str
    height: int
    width: int
    channels: int
    psnr_db: float
    paper_psnr_db: float
    biharmonic_psnr_db: float
    seconds: float
    paper_seconds: float
    biharmonic_seconds: float


def picture_files(folder: Path) -> list[Path]:
    """Return the files of a folder, by name, without hidden ones. Raises ConfigError if it is missing or empty."""
    if not folder.is_dir():
        raise ConfigError(f"pictures: expected a folder, got {folder}")
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise ConfigError(f"{folder}: expected at least one picture, got no file")
    return files


def psnr_rows(
    files: list[Path],
    drop_ratio: float,
    skipped: Skipped,
    *,
    seed: int = 0,
    spread: bool = True,
    fill: Fill | None = None,
) -> Iterator[PsnrRow]:
    """Yield a row for each picture. An unreadable file is reported to `skipped`. All three ways fill the same holes.

    `fill` is the restorer; None is torch's. Times are those of the filling alone, on the CPU. Before, each way runs
    once unmeasured on a corner of the first picture, and `fill` on a picture of the same size: a camera's frames have
    one size, for which the runtime may prepare. Raises ConfigError for a drop ratio out of range.
    """
    restorer = fill or (lambda frames, kept: _fill(frames, kept, "default"))
    check_drop_ratio(drop_ratio)
    generator = torch.Generator().manual_seed(seed)
    warm = False
    for file in files:
        try:
            picture = read_picture(file)
        except ConfigError as error:
            skipped(file.name, str(error))
            continue
        clean = to_frames(picture[None], torch.device("cpu"))
        height, width = picture.shape[:2]
        kept = random_masks(1, height, width, drop_ratio, generator, spread)
        if not kept.any():
            skipped(file.name, f"expected a picture with a kept pixel, {width}×{height} has none")
            continue
        frames = drop(clean, kept)
        if not warm:
            corner = (..., slice(64), slice(64))
            _row(file.name, picture[:64, :64], clean[corner], frames[corner], kept[corner], restorer)
            warm = True
        restorer(torch.zeros_like(frames), kept)
        yield _row(file.name, picture, clean, frames, kept, restorer)


def _row(name: str, picture: NDArray[np.uint8], clean: Tensor, frames: Tensor, kept: Tensor, restorer: Fill) -> PsnrRow:
    filled, seconds = _timed(lambda: restorer(frames, kept))
    paper, paper_seconds = _timed(lambda: _fill(frames, kept, "paper"))
    smooth, biharmonic_seconds = _timed(lambda: biharmonic(frames, kept))
    height, width, channels = picture.shape
    return PsnrRow(
        file=name,
        height=height,
        width=width,
        channels=channels,
        psnr_db=float(psnr_db(filled, clean)),
        paper_psnr_db=float(psnr_db(paper, clean)),
        biharmonic_psnr_db=float(psnr_db(smooth, clean)),
        seconds=seconds,
        paper_seconds=paper_seconds,
        biharmonic_seconds=biharmonic_seconds,
    )


@torch.inference_mode()
def _fill(frames: Tensor, kept: Tensor, mode: Mode) -> Tensor:
    return reconstruct(frames, kept, mode)


def biharmonic(frames: Tensor, kept: Tensor) -> Tensor:
    """Return one frame (1, C, H, W) filled by scikit-image's `inpaint_biharmonic`, clamped to [0, 1].

    Source: Chui and Mhaskar 2010.
    """
    from skimage.restoration import inpaint_biharmonic

    picture, dropped = frames[0].permute(1, 2, 0).numpy(), ~kept[0, 0].numpy()
    filled = inpaint_biharmonic(picture, dropped, channel_axis=-1) if dropped.any() else picture
    return torch.from_numpy(np.ascontiguousarray(filled.transpose(2, 0, 1)))[None].to(frames.dtype).clamp(0, 1)


def _timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def summary(rows: list[PsnrRow]) -> dict[str, float]:
    """Return means of the dB over pictures and sums of the seconds. Raises ConfigError without a row."""
    if not rows:
        raise ConfigError("pictures: expected at least one readable picture, got none")
    means = ("psnr_db", "paper_psnr_db", "biharmonic_psnr_db")
    sums = ("seconds", "paper_seconds", "biharmonic_seconds")
    return {name: sum(getattr(row, name) for row in rows) / len(rows) for name in means} | {
        name: sum(getattr(row, name) for row in rows) for name in sums
    }
