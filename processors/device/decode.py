"""Decoding of frames to pixels on the device; a frame that does not decode leaves the rest of its batch unaffected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from processors.arrivals.job import FrameJob
from schemas.errors import BadPixelsError, WireError
from schemas.limits import BLOCK, BLOCK_PIXELS
from schemas.pixels.gather import gather
from schemas.pixels.packing import Picture, unpack, unpack_pixels
from schemas.pixels.planes import Planes, to_picture
from schemas.pointillist_pb2 import RAW


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """The G frames of a batch that decode, and the errors of the others."""

    pixels: Tensor
    """(P, C) uint8: the pixels of all frames in sequence, in the raster order of `sent`."""
    kept: Tensor
    """(G, 1, H, W) bool: the frames' masks."""
    sent: Tensor
    """(G, 1, H, W) bool: True for each pixel in `pixels`; all True for a frame that was sent whole."""
    good: list[int]
    """Positions in the batch, ascending."""
    refused: dict[int, WireError]
    """Errors by position in the batch."""


def decoded_batch(batch: Sequence[FrameJob], kept: Tensor, sent: Tensor) -> DecodedBatch:
    """Decode the pixels of a batch of one shape, on the device of its masks `kept` and `sent` (B, 1, H, W)."""
    shape = batch[0].shape
    device = sent.device
    # Fetching the masks from a GPU means waiting for it: only if decoding needs them.
    on_host = shape.height % BLOCK or shape.width % BLOCK or any(job.frame.profile != RAW for job in batch)
    host_sent = sent[:, 0].cpu().numpy() if on_host else None
    good: list[int] = []
    refused: dict[int, WireError] = {}
    pixels = bytearray()
    for index, job in enumerate(batch):
        try:
            if host_sent is None:
                pixels += _raw_pixels(job)
            elif job.planes is not None:
                pixels += gather(_shown(job.planes, shape.channels), host_sent[index]).data
            else:
                frame = job.frame
                pixels += unpack_pixels(job.pixels(), host_sent[index], frame.channels, frame.profile).tobytes()
        except WireError as error:
            refused[index] = error
        else:
            good.append(index)
    if refused:
        kept, sent = kept[good], sent[good]
    return DecodedBatch(_uploaded(pixels, shape.channels, device), kept, sent, good, refused)


def whole_picture(job: FrameJob) -> Picture:
    """Return the picture (H, W, C) of a probe."""
    shape = job.shape
    if job.planes is not None:
        return _shown(job.planes, shape.channels)
    everything = np.ones((shape.height, shape.width), dtype=np.bool_)
    return unpack(job.pixels(), everything, shape.channels, job.frame.profile)


def _shown(planes: Planes, channels: int) -> Picture:
    """Return the picture (H, W, C) of decoded planes: a decoder returns chroma for grey pictures, too."""
    return planes.luma[..., None] if channels == 1 else to_picture(planes)


def _uploaded(pixels: bytearray, channels: int, device: torch.device) -> Tensor:
    flat = torch.frombuffer(pixels or bytearray(channels), dtype=torch.uint8).view(-1, channels)
    if device.type != "cuda":
        return flat
    return flat.pin_memory().to(device, non_blocking=True)


def _raw_pixels(job: FrameJob) -> memoryview:
    """Return the pixels of a frame of the profile `raw` of whole blocks: their number is known without the mask."""
    frame, shape = job.frame, job.shape
    dropped = 0 if frame.whole else frame.dropped_per_block
    count = shape.height * shape.width // BLOCK_PIXELS * (BLOCK_PIXELS - dropped)
    pixels = job.pixels()
    if len(pixels) != count * shape.channels:
        raise BadPixelsError(f"expected {count} pixels of {shape.channels} bytes, got {len(pixels)} bytes")
    return pixels
