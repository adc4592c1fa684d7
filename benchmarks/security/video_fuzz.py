"""Mutated access units of one hostile camera, decoded next to an honest camera.

    python -m benchmarks.security.video_fuzz --out docs/results/video

Bytes of access units, parameter sets included, are changed, removed, repeated or exchanged. Every unit goes
through the decoding processes of a processor. Before and during the attack, an honest camera's units are timed one at a
time. `--out` receives `fuzz.json`.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.quantile import quantile
from processors.decoding.decoders import VideoDecoders, VideoUnit
from producers.video.encoder import software_encoder
from schemas.identity import CameraId
from schemas.messages.access_unit import AccessUnit, Codec
from schemas.pixels.planes import Colour, Planes, chroma_shape
from schemas.runtime.json_files import write_json

HEIGHT, WIDTH = 432, 768
HONEST, HOSTILE = CameraId("bench/honest"), CameraId("bench/hostile")
CHAIN: Final = 5
"""Units of each hostile group."""
TIMED: Final = 10
"""Hostile units between two timed ones."""
PARAMETER_BYTES: Final = 60
"""Bytes at the beginning of a key frame that hold its parameter sets."""
WAIT_S: Final = 60.0


def chain(codec: Codec, count: int) -> list[bytes]:
    """Return the units of one group of moving pictures."""
    encoder = software_encoder(codec, HEIGHT, WIDTH, 25.0, 20)
    down, right = np.mgrid[:HEIGHT, :WIDTH]
    chroma = np.full(chroma_shape(HEIGHT, WIDTH), 120, dtype=np.uint8)
    units = []
    for number in range(count):
        luma = (128 + 60 * np.sin((right + 3 * number) / 17) * np.cos((down - number) / 13)).astype(np.uint8)
        units.append(encoder.encode(Planes(luma, chroma, chroma)))
    encoder.close()
    return units


def mutated(unit: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Return a unit with one random change."""
    data = bytearray(unit)
    at = int(random.integers(len(data)))
    match random.integers(6):
        case 0:
            for place in random.integers(0, len(data), 1 + at % 8):
                data[place] ^= 1 << int(random.integers(8))
        case 1:
            data[int(random.integers(min(PARAMETER_BYTES, len(data))))] = int(random.integers(256))
        case 2:
            del data[at:]
        case 3:
            del data[at : at + int(random.integers(1, 64))]
        case 4:
            data[at:at] = data[: int(random.integers(1, 400))]
        case _:
            data[at:] = other[at:]
    return bytes(data) or b"\0"


def unit(camera: CameraId, codec: Codec, data: bytes, key: int, place: int) -> VideoUnit:
    """Return a unit as a processor gets it."""
    colour = Colour.BT601_LIMITED
    return VideoUnit(camera, 1, key + place, key, place, 0, False, HEIGHT, WIDTH, AccessUnit(codec, colour, data))


class Honest:
    """The honest camera: one unit at a time, timed."""

    def __init__(self, decoders: VideoDecoders) -> None:
        self._decoders = decoders
        self._units = chain(Codec.H264, 50)
        self._sent = 0

    def timed(self) -> float:
        """Return the seconds for its next unit."""
        place = self._sent % len(self._units)
        began = time.perf_counter()
        sent = unit(HONEST, Codec.H264, self._units[place], self._sent - place, place)
        self._decoders.submit(sent, began).result(WAIT_S)
        self._sent += 1
        return time.perf_counter() - began


def main() -> None:
    """Attack, and write the counts."""
    options = command_line(
        __doc__,
        out=Option(Path, "folder for fuzz.json", required=True),
        units=Option(5000, "mutated units"),
        seed=0,
    )
    random = np.random.default_rng(options.seed)
    decoders = VideoDecoders()
    honest = Honest(decoders)
    whole = {codec: chain(codec, CHAIN) for codec in Codec}
    quiet = [honest.timed() for _ in range(max(100, options.units // TIMED))]
    attacked: list[float] = []
    outcomes: Counter[str] = Counter()
    sent = 0
    waiting: list[Future[Planes]] = []

    def settle() -> None:
        for each in waiting:
            outcomes[type(each.exception(WAIT_S)).__name__] += 1
        waiting.clear()

    for number in range(options.units):
        codec = list(Codec)[number % 2]
        bad = int(random.integers(CHAIN))
        units = list(whole[codec])
        units[bad] = mutated(units[bad], units[(bad + 1) % CHAIN], random)
        for place in range(bad + 1):
            waiting.append(decoders.submit(unit(HOSTILE, codec, units[place], CHAIN * number, place), 0.0))
            sent += 1
        if number % TIMED == TIMED - 1:
            attacked.append(honest.timed())
            settle()
    settle()
    counts = decoders.counts
    decoders.close()
    times = {"quiet": quiet, "attacked": attacked}
    p99_ms = {name: 1000 * (quantile(seconds, 0.99) or 0.0) for name, seconds in times.items()}
    result = {
        "command": options.command,
        "mutated_units": options.units,
        "units_sent": sent,
        "futures_by_outcome": dict(outcomes),
        "counts": counts,
        "uncounted": sent - sum(outcomes.values()),
        "honest_failures": 0,  # a failure of the honest camera would have been raised
        "honest_p99_ms": p99_ms,
        "honest_p99_ratio": p99_ms["attacked"] / p99_ms["quiet"],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "fuzz.json", result)
    print(result)


if __name__ == "__main__":
    main()
