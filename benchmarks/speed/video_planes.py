"""Video at a network's scale, from planes and by way of RGB: `python -m benchmarks.speed.video_planes [--json FILE]`.

Both sides resample the kept pixels of the same decoded picture to the network's input, in turns on one thread. One side
resamples luma and chroma, and converts the small picture. The other converts the whole picture first. `ratio` is the
second's CPU time ÷ the first's, by the least of the rounds. `levels` is the mean difference of both results in grey
levels. `decode_ratio` is the CPU time of decoding in a process, its hand-over included, ÷ the CPU time of the planes.

`cpu_ms` lists the CPU time of a frame by its parts: the decoding process (`decoder`), its hand-over in the processor,
and the resampling in both ways. `mask` is the CPU time once for each group, `preview` that of a JPEG for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks.harness.command_line import command_line
from benchmarks.harness.cpu_time import timed
from benchmarks.harness.document import machine, report
from processors.decoding.process import DecodingProcess
from processors.decoding.protocol import Operation
from processors.results.preview import preview_jpeg
from processors.settings import ProcessorSettings
from processors.stages.packed import PackedFrames
from processors.stages.planar import PlanarFrames, PlaneMask
from processors.stages.resample import fitted
from processors.stages.scaler import shown_planes
from producers.video.encoder import software_encoder
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.access_unit import AccessUnit, Codec
from schemas.pixels.fill import Fill
from schemas.pixels.gather import gather
from schemas.pixels.masks import kept_mask
from schemas.pixels.planes import Colour, Planes, chroma_shape, to_picture
from schemas.runtime.memory import keep_freed

CASES: Final = (((432, 768), (32, 32)), ((1080, 1920), (32, 32)), ((480, 640), (224, 224)), ((1080, 1920), (224, 224)))
DROPPED: Final = 16
PREVIEW_SIDE: Final[int] = ProcessorSettings.model_fields["preview_side"].default
_CRF: Final = 23
_PIXELS: Final = 2**22

T = TypeVar("T")


def moving(height: int, width: int, number: int) -> Planes:
    """Return a picture of a pattern that moves."""
    down, right = np.mgrid[:height, :width]
    luma = (128 + 60 * np.sin((right + 3 * number) / 17) * np.cos((down - number) / 13)).astype(np.uint8)
    rows, columns = chroma_shape(height, width)
    blue = (128 + 30 * np.sin(np.mgrid[:rows, :columns][1] / 23)).astype(np.uint8)
    return Planes(luma, blue, 255 - blue, Colour.BT601_LIMITED)


@torch.inference_mode()
def measured(size: tuple[int, int], scale: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Measure one size of frames and one of the network's input."""
    key = derive_camera_key(bytes(range(32)), CameraId("bench/camera"))
    mask = PlaneMask(kept_mask(key, 1, 0, *size, DROPPED))
    kept = mask.kept[None, None]
    fill, encoder = Fill(mask.kept.numpy()), software_encoder(Codec.H264, *size, 25.0, _CRF)
    units = [encoder.encode(fill.planes(moving(*size, number))) for number in range(rounds)]
    encoder.close()

    def from_planes(planes: Planes) -> Tensor:
        return PlanarFrames([planes], 3, [mask], [mask]).at_scale(*scale)[0]

    def from_rgb(planes: Planes) -> Tensor:
        pixels = torch.from_numpy(gather(to_picture(planes), mask.kept.numpy())).view(-1, 3)
        return PackedFrames(pixels, kept, kept).at_scale(*scale)[0]

    shown = fitted(*size, PREVIEW_SIDE)

    def group_mask() -> None:
        made = PlaneMask(kept_mask(key, 1, 0, *size, DROPPED))
        made.shares(*scale)

    def preview(planes: Planes) -> bytes:
        return preview_jpeg(shown_planes(planes, *shown))

    def note(part: str, action: Callable[[], T]) -> T:
        found, seconds = timed(action, time.thread_time_ns)
        times.setdefault(part, []).append(1000 * seconds)
        return found

    process = DecodingProcess(_PIXELS, 2**30)
    process.limits()
    times: dict[str, list[float]] = {}
    before = sum(psutil.Process(process.pid).cpu_times()[:2])
    for place, data in enumerate(units):
        unit = AccessUnit(Codec.H264, Colour.BT601_LIMITED, data)
        operation = Operation.NEXT if place else Operation.OPEN
        planes = note("hand-over", partial(process.decode, operation, 1, unit, *size, 30.0))
        small = note("planes", partial(from_planes, planes))
        note("mask", group_mask)
        note("preview", partial(preview, planes))
        small_of_rgb = note("rgb", partial(from_rgb, planes))
    worker_ms = 1000 * (sum(psutil.Process(process.pid).cpu_times()[:2]) - before) / rounds
    process.kill()
    least = {name: min(values) for name, values in times.items()}
    return {
        "frame": f"{size[1]}x{size[0]}",
        "input": f"{scale[1]}x{scale[0]}",
        "ratio": least["rgb"] / least["planes"],
        "decode_ratio": (worker_ms + least["hand-over"]) / least["planes"],
        "levels": 255 * float((small - small_of_rgb).abs().mean()),
        "cpu_ms": least | {"decoder": worker_ms},
    }


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(__doc__, json=Path, rounds=40)
    torch.set_num_threads(1)
    keep_freed()
    rows = [measured(size, scale, arguments.rounds) for size, scale in CASES]
    report({"rows": rows, "machine": machine("torch"), "command": arguments.command}, arguments.json)


if __name__ == "__main__":
    main()
