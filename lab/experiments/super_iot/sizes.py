"""Bytes per frame against accuracy: a camera's messages, compared with JPEG and WebP of the whole frame.

Ours is the profile `lossless` at each drop ratio, classified after the default. JPEG and WebP are decoded and
classified directly. PNG and lossless WebP are the input of the bare network. A JPEG of 32×32 pixels consists mostly of
tables that every frame repeats. `JPEG without tables` is the size if both sides have them (an abbreviated stream,
ITU-T T.81 annex B.5).
"""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures
from lab.experiments.super_iot.rows import SizeRow
from lab.masks import random_masks
from lab.provenance import made_by
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.pixels.packing import Picture, pack
from schemas.pointillist_pb2 import LOSSLESS, RAW

QUALITIES: Final = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
PROFILES: Final = {"lossless": LOSSLESS, "raw": RAW}
JPEG: Final = "JPEG"
JPEG_WITHOUT_TABLES: Final = "JPEG without tables"
WEBP: Final = "WebP"
LOSSY: Final = (JPEG, JPEG_WITHOUT_TABLES, WEBP)
WHOLE: Final = ("PNG", "WebP lossless")

_IMAGE_ONLY: Final = 2
"""Pillow's stream type of a JPEG without tables."""


def encoded(picture: Picture, encoding: str, quality: int | None = None) -> bytes:
    """Return a whole picture (H, W, 1 or 3) in one of the encodings above."""
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    stream = BytesIO()
    if encoding == JPEG:
        image.save(stream, "JPEG", quality=quality)
    elif encoding == JPEG_WITHOUT_TABLES:
        image.save(stream, "JPEG", quality=quality, streamtype=_IMAGE_ONLY)
    elif encoding == WEBP:
        image.save(stream, "WEBP", quality=quality, method=4)
    elif encoding == "PNG":
        image.save(stream, "PNG")
    elif encoding == "WebP lossless":
        image.save(stream, "WEBP", lossless=True)
    else:
        raise ValueError(f"expected one of {(*LOSSY, *WHOLE)}, got {encoding!r}")
    return stream.getvalue()


def decoded(data: bytes, channels: int) -> Picture:
    """Return the picture (H, W, `channels`) of encoded data."""
    with Image.open(BytesIO(data)) as image:
        pixels: Picture = np.array(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def packed_bytes(images: NDArray[np.uint8], ratio: float, profile: str, seed: int) -> float:
    """Return the mean bytes of the pixels that a camera sends of (N, H, W, C); a message at 32×32 adds at most 44."""
    count, height, width = images.shape[:3]
    kept = random_masks(count, height, width, ratio, torch.Generator().manual_seed(seed))[:, 0].numpy()
    sizes = [len(pack(image, mask, PROFILES[profile])) for image, mask in zip(images, kept, strict=True)]
    return float(np.mean(sizes))


def size_rows(
    source: str, images: NDArray[np.uint8], ratios: tuple[float, ...], seed: int, cache: Cache
) -> list[SizeRow]:
    """Return every encoding's bytes for frames (N, H, W, C) uint8 of one source."""
    made_from = digest(made_by(__name__), source, ratios, seed, QUALITIES, images.shape, images.tobytes())
    name = f"bytes/{source.replace(' ', '-')}-{len(images)}"
    settings: list[tuple[str, float | None]] = [(profile, ratio) for profile in PROFILES for ratio in ratios]
    settings += [(encoding, float(quality)) for encoding in LOSSY for quality in QUALITIES]
    settings += [(encoding, None) for encoding in WHOLE]

    def measure() -> Arrays:
        return {"bytes": np.array([_mean_bytes(images, *setting, seed) for setting in settings])}

    found = cache.get(name, made_from, measure)["bytes"].astype(np.float64)
    raw = float(np.prod(images.shape[1:]))
    return [
        SizeRow(source, encoding, setting, len(images), float(size), raw, "", None)
        for (encoding, setting), size in zip(settings, found, strict=True)
    ]


def _mean_bytes(images: NDArray[np.uint8], encoding: str, setting: float | None, seed: int) -> float:
    if encoding in PROFILES:
        assert setting is not None
        return packed_bytes(images, setting, encoding, seed)
    quality = None if setting is None else int(setting)
    return float(np.mean([len(encoded(image, encoding, quality)) for image in images]))


def with_accuracy(row: SizeRow, pictures: LabelledPictures, pipeline: Pipeline, seed: int, cache: Cache) -> SizeRow:
    """Return the row with the judge's accuracy on the decoded pictures."""
    bundle = pipeline.bundle
    made_from = digest(
        made_by(__name__),
        bundle.model_id,
        bundle.settings.model_dump(exclude={"strip"}),
        pipeline.denoise,
        row.encoding,
        row.setting,
        seed,
        pictures.images.tobytes(),
        pictures.labels.tobytes(),
    )
    setting = "" if row.setting is None else f"-{row.setting:g}"
    name = f"{bundle.settings.name}/bytes/{row.encoding.replace(' ', '-')}{setting}-{len(pictures)}"
    found = cache.get(name, made_from, lambda: {"correct": _correct(row, pictures, pipeline, seed)})
    accuracy = float(found["correct"].astype(np.float64).mean())
    return SizeRow(
        row.source, row.encoding, row.setting, row.n, row.bytes, row.raw_bytes, bundle.settings.name, accuracy
    )


@torch.inference_mode()
def _correct(row: SizeRow, pictures: LabelledPictures, pipeline: Pipeline, seed: int) -> NDArray[np.bool_]:
    bundle, generator = pipeline.bundle, torch.Generator().manual_seed(seed)
    channels = pictures.images.shape[3]
    shown = pictures
    if row.encoding in LOSSY:
        assert row.setting is not None
        # The omitted tables are restored unchanged: the picture is that of the whole JPEG.
        encoding, quality = JPEG if row.encoding == JPEG_WITHOUT_TABLES else row.encoding, int(row.setting)
        images = [decoded(encoded(image, encoding, quality), channels) for image in pictures.images]
        shown = LabelledPictures(pictures.name, np.stack(images), pictures.labels)
    found = []
    for frames, labels in shown.batches(bundle.device):
        repaired = frames
        if row.encoding in PROFILES:
            assert row.setting is not None
            height, width = frames.shape[2:]
            kept = random_masks(len(frames), height, width, row.setting, generator).to(frames.device)
            repaired = pipeline.rebuild(drop(frames, kept), kept)
        found.append((_answers(bundle, repaired) == labels).cpu().numpy())
    return np.concatenate(found)


def _answers(bundle: Bundle, frames: torch.Tensor) -> torch.Tensor:
    return bundle.logits(bundle.prepare(frames)).argmax(1)
