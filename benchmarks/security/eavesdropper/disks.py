"""A system that runs and ends, and the contents of its brokers' disks afterwards."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.system import RunningSystem
from infra.audit.kafka_files import read_topic
from infra.state_folder import Layout
from producers.simulation.scenario import load_scenario
from producers.sources.opening import open_source
from schemas.identity import CameraId
from schemas.messages.frame import parse_frame
from schemas.pointillist_pb2 import Frame
from schemas.topics import KafkaTopic

_IMAGE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n")


class Logged(NamedTuple):
    """A frame in Kafka, and the picture that its camera captured."""

    frame: Frame
    picture: NDArray[np.uint8]


def run(state: Path, cameras: list[dict[str, Any]], fps: float, seconds: float) -> None:
    """Run `cameras` to their end, with everything in the folder `state`."""
    state.mkdir(parents=True)
    scenario = state / "eavesdropper.yaml"
    scenario.write_text(yaml.safe_dump({"site": "seen", "cameras": [{"fps": fps, **camera} for camera in cameras]}))
    with RunningSystem(state, "--scenario", scenario, "--seconds", seconds, "--drain-s", 120) as system:
        status, report = system.wait(seconds + 400)
    if status or report["frames_lost"] or not report["frames_recorded"]:
        raise RuntimeError(f"run: expected no loss, got status {status}, {report}: {system.output()[-2000:]}")


def frames_of(state: Path) -> dict[CameraId, list[Logged]]:
    """Return every frame in Kafka's files once, by camera and in order, with its original picture."""
    found: defaultdict[CameraId, dict[int, Frame]] = defaultdict(dict)
    for record in read_topic(Layout(state).kafka_data, KafkaTopic.FRAMES):
        frame = parse_frame(record.value or b"")
        found[CameraId((record.key or b"").decode())][frame.seq] = frame
    logged = {}
    for camera in load_scenario(state / "eavesdropper.yaml").cameras():
        frames = found[camera.camera_id]
        source = open_source(camera.source, camera.index)
        shown = [captured.picture for captured in islice(iter(source.read, None), 1 + max(frames))]
        source.close()
        logged[camera.camera_id] = [Logged(frames[seq], shown[seq]) for seq in sorted(frames)]
    return logged


def disk(folder: Path) -> bytes:
    """Return the contents of all files in a folder, one after the other."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def images_in(content: bytes) -> Iterator[Image.Image]:
    """Yield the unencrypted JPEG and PNG images."""
    for match in _IMAGE.finditer(content):
        try:
            with Image.open(io.BytesIO(content[match.start() : match.start() + 2**21])) as image:
                image.load()
                yield image
        except (OSError, ValueError, SyntaxError):
            continue


def lie_in(content: bytes, pieces: Iterable[bytes]) -> int:
    """Return how many of these pieces a disk holds. A piece is too long to be there by chance."""
    return sum(piece in content for piece in pieces)
